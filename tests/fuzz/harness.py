"""Runs one case on the golden model, the simulator and the RTL, and compares them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from hypothesis import reject

from signmask.compiler.backend.lower import lower
from signmask.compiler.errors import CompileError
from signmask.hw.simulation.backend import RtlMachine
from signmask.hw.spec.container import Program
from signmask.hw.spec.step import StepResult
from signmask.reference.golden import GoldenModel
from signmask.sim.machine import Machine
from tests.fuzz.cases import Case
from tests.tiny_networks import input_codes

REGRESSIONS = Path(__file__).parent / "regressions"


class Mismatch(AssertionError):
    """Two backends disagree; the message says which, in which step and where."""


def compile_case(case: Case) -> Program:
    """The case's program; tells Hypothesis to draw another where the machine is too small."""
    network, tensors = case.network()
    try:
        return lower(network, tensors, case.config, case.batch)
    except CompileError:
        reject()


def check(case: Case, program: Program | None = None) -> None:
    """Raise Mismatch unless all backends agree on every step of the case."""
    program = program or compile_case(case)
    network, tensors = program.network, dict(program.tensors)
    golden = GoldenModel(network, tensors, case.batch)
    codes = input_codes(network, case.batch, case.seed, case.change)
    with closing(RtlMachine(program, stall_seed=case.stall_seed or None)) as rtl:
        machine = Machine(program)
        for index, dense in enumerate((True, *case.phases)):
            phase = "dense_step" if dense or case.dataflow == "dense" else "delta_step"
            expected = getattr(golden, phase)(index, codes[index])
            simulated = getattr(machine, phase)(index, codes[index])
            found = getattr(rtl, phase)(index, codes[index])
            where = f"step {index} ({phase})"
            for problem in (
                *_accumulators("simulator", simulated, "golden model", expected),
                *_accumulators("RTL", found, "simulator", simulated),
                *_counts(found, simulated, timed=not case.stall_seed),
            ):
                raise Mismatch(f"{where}: {problem}")


def _accumulators(name: str, got: StepResult, other: str, want: StepResult) -> Iterator[str]:
    if not np.array_equal(got.accumulators, want.accumulators):
        place = tuple(int(i[0]) for i in np.nonzero(got.accumulators != want.accumulators))
        yield (
            f"{name} has {got.accumulators[place]} where the {other} has "
            f"{want.accumulators[place]} at (image, row, column, channel) {place}"
        )


def _counts(rtl: StepResult, sim: StepResult, timed: bool) -> Iterator[str]:
    if timed and rtl.cycles != sim.cycles:
        yield f"RTL takes {rtl.cycles} cycles, the simulator {sim.cycles}"
    if timed and dict(rtl.busy) != dict(sim.busy):
        yield f"RTL is busy {dict(rtl.busy)}, the simulator {dict(sim.busy)}"
    if dict(rtl.traffic) != dict(sim.traffic):
        yield f"RTL moves {dict(rtl.traffic)}, the simulator {dict(sim.traffic)}"
    for name in sorted({*rtl.counters, *sim.counters}):
        mine, theirs = dict(rtl.counters.get(name, {})), dict(sim.counters.get(name, {}))
        if mine != theirs:
            yield f"counters of '{name}': RTL {mine}, simulator {theirs}"
