"""Step by step, RTL beside simulator, until they differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from signmask.hw.simulation.backend import RtlMachine
from signmask.hw.simulation.divergence import (
    InstructionEvent,
    Written,
    first_divergence,
    memory_difference,
)
from signmask.hw.simulation.scratchpad_trace import Shadow, spaces
from signmask.hw.spec.container import Program
from signmask.hw.spec.isa import Instruction
from signmask.hw.spec.memory_map import MemoryMap
from signmask.hw.spec.step import StepResult
from signmask.sim.machine import Machine

# The simulator keeps both halves of the mask scratchpad under singular names.
RTL_SPACES = {"segment": "segments", "correction": "corrections"}


class Lockstep:
    """A backend that executes every step on RTL and simulator; `differences` holds one sentence
    for each that was found, the first event of a step first.

    `last` step, `dense_step` and `delta_step` are those of the simulator. Raises RtlError when
    tools are missing.
    """

    def __init__(
        self, program: Program, stall_seed: int | None = None, waves: Path | None = None
    ) -> None:
        self.differences: list[str] = []
        self.steps = 0
        self._mine: list[InstructionEvent] = []
        self._theirs: list[InstructionEvent] = []
        self._timed = stall_seed is None
        self._map = MemoryMap.from_json(program.memory_map)
        self.simulator = Machine(program, self._simulated)
        self.rtl = RtlMachine(program, stall_seed=stall_seed, trace=self._executed, waves=waves)
        trace = self.rtl.instruction_trace.path
        self._shadows = {
            name: Shadow(space, trace.with_name(f"{trace.name}.{name}"))
            for name, space in spaces(program.config).items()
        }

    @property
    def last(self) -> int | None:
        """Index of the step executed last."""
        return self.simulator.last

    def close(self) -> None:
        """End the simulation of the RTL."""
        self.rtl.close()

    def _simulated(self, index: int, instruction: Instruction, start: int, done: int) -> None:
        writes = tuple(
            Written(RTL_SPACES.get(space, space), first, values)
            for space, first, values in self.simulator.written()
        )
        self._theirs.append(InstructionEvent(index, instruction, start, done, writes))

    def _executed(self, index: int, instruction: Instruction, start: int, done: int) -> None:
        self._mine.append(InstructionEvent(index, instruction, start, done))

    def dense_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Both execute a dense step."""
        return self._step("dense_step", index, codes)

    def delta_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Both execute a differential step."""
        return self._step("delta_step", index, codes)

    def _step(self, phase: str, index: int, codes: np.ndarray) -> StepResult:
        self._mine.clear()
        self._theirs.clear()
        expected: StepResult = getattr(self.simulator, phase)(index, codes)
        found: StepResult = getattr(self.rtl, phase)(index, codes)
        self.steps += 1
        self._theirs.sort(key=lambda event: event.index)
        # Under stalls the times are the RTL's own.
        theirs = self._theirs if self._timed else [
            InstructionEvent(e.index, e.instruction, m.start, m.done, e.writes)
            for e, m in zip(self._theirs, self._mine, strict=True)
        ]  # fmt: skip
        zero = self.rtl.instruction_trace.zero
        event = first_divergence(self._mine, theirs, self._shadows, zero)
        where = f"step {index} ({phase.removesuffix('_step')})"
        if event is not None:
            self.differences.append(f"{where}, {event}")
        if (
            text := memory_difference(self.rtl.memory, self.simulator.memory, self._map)
        ) is not None:
            self.differences.append(f"{where}: {text}")
        if not np.array_equal(found.accumulators, expected.accumulators):
            self.differences.append(f"{where}: the output accumulators differ")
        if self._timed and found.cycles != expected.cycles:
            self.differences.append(
                f"{where}: {found.cycles} cycles in the RTL, {expected.cycles} in the simulator"
            )
        return expected
