"""The RTL in Verilator and the simulator: equal accumulators, cycles, busy cycles, bytes, counters.

The bundled models on `nano`, on the noise and the trajectory of a real run: a dense step and
differential ones in every dataflow, at several latencies, and under random stalls.
"""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pytest

from signmask.compiler.backend.lower import lower
from signmask.hw.simulation.backend import RtlMachine
from signmask.hw.spec.config import NANO
from signmask.hw.spec.container import Program
from signmask.hw.spec.network import Knobs
from signmask.hw.spec.step import StepResult
from signmask.runtime.cli.main import main
from signmask.runtime.divergence import Lockstep
from signmask.runtime.session import Session
from signmask.sim.machine import Machine
from tests.tiny_networks import NETWORKS, input_codes, labelled

STEPS = 20
# Memory latency, near-data latency, of the steps that are executed at it.
LATENCIES = ((100, 40), (1, 1), (237, 90))
SETTINGS = {
    "dense": ["--dataflow", "dense"],
    "restore": ["--dataflow", "restore"],
    "mask": ["--dataflow", "mask"],
    "paper": ["--dataflow", "mask", "--paper"],
}

KNOBS = {
    "dense": Knobs(dataflow="dense"),
    "restore": Knobs(dataflow="restore"),
    "mask": Knobs(),
    "carry": Knobs(loop="carry", carry_bits=3, overflow="spill"),
    "open trend": Knobs(loop="open", overflow="clip"),
}


class Recorder:
    """A backend that keeps the input codes of every step."""

    def __init__(self, program: Program) -> None:
        self.machine, self.codes = Machine(program), []
        self.last = None

    def dense_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Execute and keep."""
        self.codes.append(codes.copy())
        return self.machine.dense_step(index, codes)

    def delta_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Execute and keep."""
        self.codes.append(codes.copy())
        return self.machine.delta_step(index, codes)


@cache
def recorded(model: str, setting: str, steps: int) -> tuple[Program, list[np.ndarray]]:
    """A compiled program and the codes of its first steps."""
    path = Path(mkdtemp()) / "program.smk"
    words = ["compile", model, "--steps", str(STEPS), "-o", str(path), *SETTINGS[setting]]
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    program = Program.load(path)
    shutil.rmtree(path.parent)
    recorder = Recorder(program)
    Session(program, recorder).sample(1, first=steps)
    return program, recorder.codes


def assert_equal(rtl: StepResult, sim: StepResult, timed: bool = True) -> None:
    assert np.array_equal(rtl.accumulators, sim.accumulators)
    assert dict(rtl.traffic) == dict(sim.traffic)
    assert {k: dict(v) for k, v in rtl.counters.items()} == {
        k: dict(v) for k, v in sim.counters.items()
    }
    if timed:
        assert rtl.cycles == sim.cycles
        assert dict(rtl.busy) == dict(sim.busy)


def run(program: Program, codes: list[np.ndarray], stall_seed: int | None = None) -> None:
    """Every step on both, compared."""
    sim = Machine(program)
    with closing(RtlMachine(program, stall_seed=stall_seed)) as rtl:
        for index, code in enumerate(codes):
            phase = "dense_step" if index == 0 or "delta" not in program.code else "delta_step"
            expected = getattr(sim, phase)(index, code)
            assert_equal(getattr(rtl, phase)(index, code), expected, stall_seed is None)


def at(program: Program, latencies: tuple[int, int]) -> Program:
    """The program on a machine with other latencies."""
    memory, near = latencies
    return replace(
        program, config=replace(program.config, memory_latency=memory, near_data_latency=near)
    )


@pytest.mark.parametrize("latencies", LATENCIES, ids=lambda pair: f"{pair[0]} cycles")
@pytest.mark.parametrize("setting", SETTINGS)
def test_bundled_model(setting, latencies):
    # A dense step takes longest, and the dataflows share it.
    program, codes = recorded("fashion-silu", setting, 1 if setting == "dense" else 3)
    run(at(program, latencies), codes)


@pytest.mark.parametrize("setting", ["restore", "mask"])
def test_random_stalls_change_no_result(setting):
    program, codes = recorded("fashion-silu", setting, 2)
    run(program, codes, stall_seed=7)


def test_relu_model():
    program, codes = recorded("fashion-relu", "mask", 2)
    run(program, codes)


@pytest.mark.parametrize("setting", KNOBS)
def test_transformer(setting):
    """Norms of tokens, products, and norms with a gain per step, of two images."""
    network, tensors = NETWORKS["transformer"](seed=3, knobs=KNOBS[setting], rows=2)
    codes = input_codes(network, 2, seed=5)
    run(lower(network, tensors, NANO, 2), [codes[step] for step in range(3)])


@pytest.mark.parametrize("flow", ["restore", "mask"])
def test_images_with_constants_of_their_own(flow):
    network, tensors = labelled(knobs=Knobs(dataflow=flow), steps=3)
    codes = input_codes(network, 2, seed=5)
    run(lower(network, tensors, NANO, 2), list(codes))


def test_every_scratchpad_write_agrees():
    program, codes = recorded("fashion-silu", "mask", 2)
    with closing(Lockstep(program)) as both:
        both.dense_step(0, codes[0])
        both.delta_step(1, codes[1])
        assert both.differences == []
