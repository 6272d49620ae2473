"""NORMALISE_TOKENS in RTL against the simulator: results and cycles."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from signmask.hw.sfu.normalise_tokens import NormaliseTokens
from signmask.hw.simulation import runner
from signmask.hw.spec.config import NANO

BENCH = Path(__file__).parent / "tokens_bench.py"
SLOW = pytest.param(64, marks=pytest.mark.slow)


@pytest.mark.parametrize("group", [8, 16, SLOW])
def test_random_instructions(group):
    config = replace(NANO, group=group, axi_bytes=64, accumulator_words=256)
    build = runner.build(NormaliseTokens(config), "normalise_tokens")
    parameters = {"config": config.to_json(), "seed": 1, "instructions": 80}
    runner.run(build, BENCH, "normalise_tokens", env={"PARAMETERS": json.dumps(parameters)})
