"""The divergence tool names the instruction and the element at which a planted bug first shows."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import pytest

from signmask.compiler.backend.lower import lower
from signmask.hw.spec import timing
from signmask.hw.spec.network import Knobs
from signmask.runtime.divergence import Lockstep
from signmask.sim.sfu import Sfu
from tests.fuzz.cases import MACHINES
from tests.tiny_networks import input_codes, minimal

CONFIG = MACHINES["small"]


@pytest.fixture
def lockstep():
    knobs = Knobs(group=CONFIG.group, full_lanes=CONFIG.full_lanes, inlier_bits=CONFIG.inlier_bits)
    network, tensors = minimal(knobs=knobs)
    program = lower(network, tensors, CONFIG, 1)

    def run():
        codes = input_codes(network, 1)
        with closing(Lockstep(program)) as both:
            both.dense_step(0, codes[0])
            both.delta_step(1, codes[1])
            return both.differences

    return run


def test_no_difference(lockstep):
    assert lockstep() == []


def test_a_wrong_value(lockstep, monkeypatch):
    right = Sfu.requantise

    def wrong(self, f):
        cost = right(self, f)
        self.core.accumulator.data[f["accumulator"] + 3, 2] += 1
        return cost

    # The instructions are bound when a machine is made, so the class is patched before.
    monkeypatch.setattr(Sfu, "requantise", wrong)
    first = lockstep()[0]
    print(first)
    assert first.startswith("step 0 (dense), cycle ")
    assert "vector unit, instruction " in first
    assert "lane 2 holds " in first
    assert "(1 of " in first and "REQUANTISE" in first


def test_a_wrong_time(lockstep, monkeypatch):
    monkeypatch.setattr(timing, "REQUANTISE_FILL", timing.REQUANTISE_FILL + 1)
    differences = lockstep()
    assert "is done in cycle " in differences[0] and "REQUANTISE" in differences[0]
    assert any("cycles in the RTL" in text for text in differences)


def test_a_wrong_byte_of_memory(lockstep, monkeypatch):
    from signmask.sim.machine import Machine

    right = Machine._step

    def wrong(self, phase, index, codes):
        result = right(self, phase, index, codes)
        place = self._host.region("output").address
        self.memory[place] = np.uint8(self.memory[place] ^ 1)
        return result

    monkeypatch.setattr(Machine, "_step", wrong)
    assert "memory region 'output' differs first in byte 0 of " in lockstep()[0]
