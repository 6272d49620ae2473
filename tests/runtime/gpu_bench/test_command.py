"""`signmask bench gpu` on a machine without a GPU."""

import importlib.util
import json
import subprocess
import sys

import pytest
import torch

from signmask.runtime.gpu_bench.shapes import layer_shapes
from signmask.runtime.gpu_bench.study import NO_DEVICE
from tests.runtime.test_cli import failure

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
TINY = ("bench", "gpu", "--quick", "--steps", "2", "--images", "1")


def command(*arguments):
    program = f"from signmask.runtime.cli.main import main; main({[*map(str, arguments)]!r})"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120
    )


@without_gpu
def test_rates_are_measured_and_the_rest_is_said_not_to_be(tmp_path):
    run = command(*TINY, "-o", tmp_path)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert NO_DEVICE in lines and "128x128" in run.stdout
    assert max(len(line) for line in lines if not line.startswith(("No ", "Wrote "))) <= 100
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gpu.json", "gpu.png"]
    assert (tmp_path / "gpu.png").read_bytes().startswith(b"\x89PNG")
    data = json.loads((tmp_path / "gpu.json").read_text())
    assert data["device"] == data["ceilings"]["device"] == "not measured"
    for key in ("products", "passes", "steps"):
        assert data[key] and all(row["device"] == "not measured" for row in data[key])
    assert all(row["seconds"] is None for row in data["products"] + data["passes"])
    assert all(row["seconds_per_step"] is None for row in data["steps"])
    assert [r["shape"] for r in data["products"]] == [s.name for s in layer_shapes(quick=True)]
    assert data["break_even"] == []
    assert [row["dataflow"] for row in data["tile_rates"]] == ["mask", "restore"]
    for row in data["tile_rates"]:
        assert row["device"].startswith("CPU") and row["steps_counted"] == [1]
        assert 0 < row["zero"] < 1 and len(row["tiles"]) == 8


@without_gpu
def test_json_is_one_object():
    run = command(*TINY, "--json")
    assert run.returncode == 0, run.stderr
    data = json.loads(run.stdout)
    assert data["format"] == 1 and data["files"] == [] and data["note"] == NO_DEVICE


def test_failures_are_one_sentence(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "folder absent" in failure(capsys, "bench", "gpu", "-o", "absent")
    assert "--steps is 1" in failure(capsys, "bench", "gpu", "--steps", "1")
    assert "--images is 0" in failure(capsys, "bench", "gpu", "--images", "0")
    assert "--batch is 0" in failure(capsys, "bench", "gpu", "--batch", "0")
    assert list(tmp_path.iterdir()) == []


def test_a_device_without_triton_is_a_failure(capsys, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "triton" else find(name, *a)
    )
    assert "'triton'" in failure(capsys, "bench", "gpu", "--quick")


def test_matplotlib_is_missed_before_anything_is_measured(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert "'matplotlib'" in failure(capsys, "bench", "gpu", "-o", tmp_path)
    assert list(tmp_path.iterdir()) == []
