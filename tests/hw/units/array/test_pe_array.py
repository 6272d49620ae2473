"""The PE array's RTL against the simulator's, results and cycles."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from signmask.hw.simulation import runner
from signmask.hw.spec.config import NANO
from tests.hw.units.array.harness import ArrayHarness

BENCH = Path(__file__).parent / "array_bench.py"
SMALL = replace(
    NANO, name="small", rows=4, input_words=256, weight_words=256, accumulator_words=256
)
CONFIGS = {
    "columns half a group": SMALL,
    "columns a group": replace(SMALL, group=8, axi_bytes=16),
    "two words of columns": replace(SMALL, columns=16, group=8, rows=3, full_lanes=1),
    "wider inliers": replace(SMALL, rows=1, columns=4, inlier_bits=4, full_lanes=3),
    "widest inliers": replace(SMALL, rows=5, columns=2, group=8, inlier_bits=5, full_lanes=8),
}


def check(config, instructions, seed):
    build = runner.build(ArrayHarness(config), "array_harness")
    parameters = {"config": config.to_json(), "seed": seed, "instructions": instructions}
    runner.run(build, BENCH, "random_instructions", env={"PARAMETERS": json.dumps(parameters)})


@pytest.mark.parametrize("name", CONFIGS)
def test_random_instructions(name):
    check(CONFIGS[name], 60, 1)


@pytest.mark.slow
def test_nano():
    check(replace(NANO, input_words=512, weight_words=512, accumulator_words=512), 40, 2)
