"""Every path of the timed kernels on Triton's interpreter, in a process of its own, and the report
that is made of the rows."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from signmask.runtime.cli import bench as command
from signmask.runtime.gpu_bench import kernels, passes
from signmask.runtime.gpu_bench.report import draw

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).parent / "interpreted_kernels.py"
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


@pytest.fixture(scope="module")
def found():
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, env=environment, timeout=300
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_every_kernel_has_a_row_with_its_device(found):
    for shape, rows in by_shape(found["products"]).items():
        names = [row["kernel"] for row in rows]
        libraries = ["cuDNN fp16", "cuDNN bf16"]
        if "matmul" in shape:
            libraries = ["torch.matmul fp16", "torch.matmul bf16"]
        # Two patterns at three shares of empty tiles.
        assert names == [*libraries, kernels.INT_MM, kernels.OURS, *[kernels.DELTA] * 6]
    rows = found["products"] + found["passes"] + found["break_even"] + [found["ceilings"]]
    assert {row["device"] for row in rows} == {"made-up device"}


def test_rows_without_a_time_say_why(found):
    missing = [row for row in found["products"] if row["seconds"] is None]
    assert [row["kernel"] for row in missing] == [kernels.INT_MM]
    assert "not applicable" in missing[0]["note"] and "3x3" in missing[0]["shape"]


def test_every_choice_of_blocks_gave_exact_results(found):
    ours = [r for r in found["products"] if r["kernel"] in (kernels.OURS, kernels.DELTA)]
    assert all(row["rejected"] == [] and row["blocks"]["rows"] >= 16 for row in ours)


def test_skipped_tiles_follow_the_empty_ones(found):
    for rows in by_shape(found["products"]).values():
        for pattern in ("units", "tiles"):
            chosen = [row for row in rows if row.get("pattern") == pattern]
            assert [row["empty"] for row in chosen] == [0.0, 0.6, 0.99]
            assert chosen[0]["skipped"] == 0 and chosen[2]["skipped"] == 1
            assert all(row["executed"] == 1 - row["skipped"] for row in chosen)
            assert all(row["lists_seconds"] > 0 for row in chosen)


def test_passes_count_their_bytes(found):
    names = [row["pass"] for row in found["passes"]]
    assert names == list(passes.BYTES) * 2
    row = found["passes"][0]
    assert row["pass"] == "encode mask" and row["bytes"] == 4 * 4 * 32 * 11
    ceiling = found["ceilings"]["copy"]
    assert row["share_of_copy_bandwidth"] == row["bytes"] / row["seconds"] / ceiling


def test_the_report_shows_them(found, capsys):
    rates = {
        "model": "m", "dataflow": "mask", "zero": 0.3, "steps": 2, "images": 1,
        "tiles": [{"rows": 16, "columns": 32, "empty": 0.0}],
    }  # fmt: skip
    step = {
        "model": "m", "dataflow": "mask", "seconds_per_step": 0.01, "speedup": 2.0, "note": "n",
    }  # fmt: skip
    data = found | {"device": "made-up device", "note": "", "tile_rates": [rates], "steps": [step]}
    assert draw(data).startswith(b"\x89PNG")
    command.show(data)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 100
    text = "\n".join(lines)
    for part in ("tiny 3x3", "encode mask", "break-even", "10.00", "tera-MAC/s"):
        assert part in text


def by_shape(rows):
    found = {}
    for row in rows:
        found.setdefault(row["shape"], []).append(row)
    return found
