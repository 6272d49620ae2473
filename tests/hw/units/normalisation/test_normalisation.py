"""The normalisation unit, CONSTANTS, divider and root against the simulator and exact integers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from signmask.hw.divider import PipelinedDivider, PipelinedRoot
from signmask.hw.normalisation import NormalisationUnit
from signmask.hw.sfu.constants import Constants
from signmask.hw.simulation import runner
from signmask.hw.spec.config import NANO

BENCH = Path(__file__).parent / "normalisation_bench.py"
CONFIGS = {
    8: replace(NANO, group=8, parameter_words=512),
    16: replace(NANO, parameter_words=512),
    64: replace(NANO, group=64, axi_bytes=64, parameter_words=512),
}
SLOW = pytest.param(64, marks=pytest.mark.slow)


def check(component, testcase, config=NANO, **parameters):
    build = runner.build(component, testcase)
    parameters = {"config": config.to_json(), "seed": 1, **parameters}
    runner.run(build, BENCH, testcase, env={"PARAMETERS": json.dumps(parameters)})


@pytest.mark.parametrize("group", [8, 16, SLOW])
def test_runs(group):
    unit = NormalisationUnit(CONFIGS[group], 256)
    check(unit, "normalises", CONFIGS[group], depth=256, runs=60)


@pytest.mark.parametrize("group", [8, 16, SLOW])
def test_constants(group):
    check(Constants(CONFIGS[group]), "executes_constants", CONFIGS[group], runs=30)


@pytest.mark.parametrize(("divisor_bits", "quotient_bits"), [(5, 9), (23, 24), (33, 39)])
def test_divider(divisor_bits, quotient_bits):
    check(
        PipelinedDivider(divisor_bits, quotient_bits), "divides", runs=1000,
        divisor_bits=divisor_bits, quotient_bits=quotient_bits,
    )  # fmt: skip


@pytest.mark.parametrize("bits", [3, 24])
def test_root(bits):
    check(PipelinedRoot(bits), "takes_roots", root_bits=bits)
