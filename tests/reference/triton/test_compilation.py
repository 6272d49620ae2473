"""Every kernel compiles for GPUs that need not be there, on their tensor cores and within their
registers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("compile_kernels.py")


@pytest.mark.parametrize(
    ("capability", "instruction"), [(90, "wgmma"), pytest.param(80, "mma", marks=pytest.mark.slow)]
)
def test_kernels_compile_and_products_take_the_tensor_cores(capability, instruction):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), str(capability)],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-3000:]
    kernels = json.loads(ended.stdout.splitlines()[-1])
    assert len(kernels) > 30
    for name, ptx in kernels.items():
        assert not ptx["spills"], f"{name} keeps values in local memory"
        takes = name.startswith(("matmul", "attention"))
        assert ptx[instruction] == takes, name
