"""SOFTMAX and NORMALISE_ROWS in RTL against the simulator: results and cycles."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from signmask.hw.sfu.softmax import NormaliseRows, Softmax
from signmask.hw.simulation import runner
from signmask.hw.spec.config import NANO

BENCH = Path(__file__).parent / "softmax_bench.py"
UNITS = {"softmax": Softmax, "normalise_rows": NormaliseRows}
SLOW = pytest.param(64, marks=pytest.mark.slow)


@pytest.mark.parametrize("group", [8, 16, SLOW])
@pytest.mark.parametrize("name", UNITS)
def test_random_instructions(name, group):
    config = replace(
        NANO, group=group, axi_bytes=64, accumulator_words=256, input_words=256, row_words=32
    )
    build = runner.build(UNITS[name](config), name)
    parameters = {"config": config.to_json(), "seed": 1, "instructions": 60}
    runner.run(build, BENCH, name, env={"PARAMETERS": json.dumps(parameters)})
