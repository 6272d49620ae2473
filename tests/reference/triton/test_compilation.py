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
    for name, kernel in kernels.items():
        product = name.startswith(("matmul", "attention"))
        assert kernel[instruction] == product, name
        assert not kernel["local"], f"{name} keeps an array in memory"
        assert not (product and kernel["stack"]), f"{name} spills registers"
