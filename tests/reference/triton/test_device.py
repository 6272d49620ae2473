"""Where the kernels run, and the one sentence that says why they cannot."""

import os
import subprocess
import sys

import pytest
import torch

from signmask.hw.spec.network import Knobs
from signmask.reference.triton import device as where
from signmask.reference.triton.errors import GpuError
from tests.runtime.programs import tiny_program

MAIN = """
import sys
from signmask.runtime.cli.main import main
main(sys.argv[1:])
"""
HIDE_TRITON = """
from importlib import util
found = util.find_spec
util.find_spec = lambda name, *rest: None if name == "triton" else found(name, *rest)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "tiny.smk"
    tiny_program("minimal").save(path)
    return path


def run_on_gpu(script, program):
    """The end of `run --backend gpu` in a process of its own, without the interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    arguments = [sys.executable, "-c", script, "run", str(program), "--backend", "gpu", "--json"]
    return subprocess.run(
        arguments, capture_output=True, text=True, check=False, env=environment, timeout=120
    )


def sentence(ended):
    """The one line on stderr of a run that fails as it should."""
    assert ended.returncode == 2 and ended.stdout == ""
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("signmask: ") and lines[0].endswith(".")
    return lines[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_told_so_in_one_sentence(program):
    line = sentence(run_on_gpu(MAIN, program))
    assert "found no CUDA device" in line and "TRITON_INTERPRET=1" in line


def test_a_missing_triton_names_the_extra(program):
    assert "pip install 'signmask[gpu]'" in sentence(run_on_gpu(HIDE_TRITON + MAIN, program))


def test_a_missing_triton_is_an_error_of_the_backend(monkeypatch):
    found = where.importlib.util.find_spec
    monkeypatch.setattr(
        where.importlib.util, "find_spec", lambda name: None if name == "triton" else found(name)
    )
    with pytest.raises(GpuError, match="needs the Python package 'triton'"):
        where.find_device()


def test_the_device_is_named(device):
    assert where.find_device() == device
    names = {"cpu": "Triton's interpreter on the CPU"}
    assert where.device_name() == names.get(device.type) or device.type == "cuda"


def test_the_interpreter_is_what_the_environment_says(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert where.interpreted() and where.find_device() == torch.device("cpu")
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert not where.interpreted()


def test_live_norm_of_mask_steps_is_refused_in_one_sentence():
    from signmask.runtime.backend import open_backend

    program = tiny_program("residual", norm="live")
    with pytest.raises(GpuError, match="compile with norm trend") as refused:
        open_backend("gpu", program)
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)
    assert program.network.knobs == Knobs(norm="live")
