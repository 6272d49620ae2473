"""The vector unit's RTL against the simulator's: results, counters and cycles."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from signmask.hw.sfu.copy import Copy
from signmask.hw.sfu.encode_mask import EncodeMask
from signmask.hw.sfu.encode_raw import EncodeRaw
from signmask.hw.sfu.encode_source import EncodeSource
from signmask.hw.sfu.multiply import Multiply
from signmask.hw.sfu.requantise import Requantise
from signmask.hw.sfu.sfu import Sfu
from signmask.hw.simulation import runner
from signmask.hw.spec.config import NANO
from tests.hw.units.sfu.harness import SfuHarness

BENCH = Path(__file__).parent / "sfu_bench.py"
SMALL = replace(
    NANO, name="small", group=8, input_words=256, accumulator_words=256, mask_words=256,
    parameter_words=128, row_words=64,
)  # fmt: skip
CONFIGS = {
    "groups of 8": SMALL,
    "one full lane": replace(SMALL, full_lanes=1, inlier_bits=4),
    "groups of 16": replace(SMALL, group=16),
}


# Softmax, constants and normalisation of tokens have tests of their own.
KINDS = (Requantise, Copy, EncodeRaw, EncodeMask, EncodeSource, Multiply)


def check(config, instructions, seed, kinds=KINDS):
    build = runner.build(SfuHarness(config, kinds), "sfu_harness")
    parameters = {"config": config.to_json(), "seed": seed, "instructions": instructions}
    runner.run(build, BENCH, "random_instructions", env={"PARAMETERS": json.dumps(parameters)})


@pytest.mark.parametrize(
    "name",
    ["groups of 8", *(pytest.param(name, marks=pytest.mark.slow) for name in list(CONFIGS)[1:])],
)
def test_random_instructions(name):
    check(CONFIGS[name], 80, 1)


@pytest.mark.slow
def test_beside_every_other_unit():
    check(SMALL, 60, 3, Sfu.KINDS)


@pytest.mark.slow
def test_groups_of_64():
    check(replace(SMALL, group=64, columns=8, full_lanes=4, axi_bytes=64), 30, 2)
