"""The simulator executes compiled instructions and ends in the golden model's accumulators."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from signmask.compiler.backend.lower import lower
from signmask.hw.spec.config import NANO
from signmask.hw.spec.network import Knobs
from signmask.reference.golden import GoldenModel
from signmask.sim.machine import Machine

_spec = spec_from_file_location("tiny_networks", Path(__file__).parents[1] / "tiny_networks.py")
tiny = module_from_spec(_spec)
_spec.loader.exec_module(tiny)

SETTINGS = {
    "dense": Knobs(dataflow="dense"),
    "restore": Knobs(dataflow="restore", overflow="spill"),
    "restore-clip": Knobs(dataflow="restore", overflow="clip"),
    "mask": Knobs(),
    "mask-clip": Knobs(overflow="clip"),
    "mask-calibrated": Knobs(norm="calibrated"),
    "mask-open": Knobs(loop="open", overflow="clip"),
    "mask-carry": Knobs(loop="carry", carry_bits=3),
    "paper": Knobs(loop="open", norm="calibrated", overflow="clip", mask_bits=1, grid_bits=0),
    "int4": Knobs(inlier_bits=4),
}


def build(name: str, knobs: Knobs):
    extra = {"channels": (24, 32)} if name == "unet" else {}
    return tiny.NETWORKS[name](knobs=knobs, **extra)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", ["minimal", "residual", "unet"])
def test_accumulators_are_equal(name, setting, batch):
    knobs = SETTINGS[setting]
    network, tensors = build(name, knobs)
    config = replace(NANO, inlier_bits=knobs.inlier_bits)
    golden = GoldenModel(network, tensors, batch)
    machine = Machine(lower(network, tensors, config, batch))
    codes = tiny.input_codes(network, batch, change=0.3)
    for index in range(network.steps):
        # a refresh in the middle overwrites all state
        phase = "dense" if knobs.dataflow == "dense" or index in (0, 3) else "delta"
        expected = getattr(golden, f"{phase}_step")(index, codes[index])
        got = getattr(machine, f"{phase}_step")(index, codes[index])
        assert np.array_equal(got.accumulators, expected.accumulators), (index, phase)
        assert got.cycles > 0
        if phase == "delta":
            for key, counts in expected.counters.items():
                assert dict(got.counters[key]) == dict(counts), (index, key)


@pytest.mark.parametrize("words", [512, 160, 128])
@pytest.mark.parametrize("setting", ["dense", "restore", "mask", "paper"])
def test_streams_that_do_not_fit_go_through_memory(setting, words):
    network, tensors = build("unet", SETTINGS[setting])
    golden = GoldenModel(network, tensors, 1)
    machine = Machine(lower(network, tensors, replace(NANO, accumulator_words=words), 1))
    codes = tiny.input_codes(network, 1, change=0.3)
    for index in range(3):
        phase = "delta" if index and setting != "dense" else "dense"
        expected = getattr(golden, f"{phase}_step")(index, codes[index])
        got = getattr(machine, f"{phase}_step")(index, codes[index])
        assert np.array_equal(got.accumulators, expected.accumulators), (index, phase)
