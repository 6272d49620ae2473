"""Start and end of every instruction, from the file that the test bench writes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from signmask.hw.spec.isa import Instruction, Queue, decode_all

Trace = Callable[[int, Instruction, int, int], None]  # index, instruction, start, done


class InstructionTrace:
    """Reports the instructions of each executed phase to an observer."""

    def __init__(self, code: Mapping[str, np.ndarray], observer: Trace) -> None:
        self._code, self._observer = code, observer
        self._folder = tempfile.TemporaryDirectory(prefix="signmask-trace-")
        self.path = Path(self._folder.name) / "trace"
        self._read = 0
        self.zero = 0  # cycle of the file in which the program reported last started

    def report(self, phase: str, cycles: int) -> None:
        """Call the observer for the phase that ran last and took `cycles`."""
        with self.path.open(encoding="ascii") as file:
            file.seek(self._read)
            lines = file.readlines()
            self._read = file.tell()
        starts: list[list[int]] = [[] for _ in Queue]
        dones: list[list[int]] = [[] for _ in Queue]
        for line in lines:
            cycle, number, what = line.split()
            (starts if what == "s" else dones)[int(number)].append(int(cycle))
        # The last instruction is done in the last cycle of the phase.
        zero = max((max(times) for times in dones if times), default=0) + 1 - cycles
        self.zero = zero
        heads = [0] * len(Queue)
        for index, instruction in enumerate(decode_all(self._code[phase])):
            queue = instruction.queue
            place = heads[queue]
            heads[queue] += 1
            self._observer(
                index, instruction, starts[queue][place] - zero, dones[queue][place] + 1 - zero
            )

    def close(self) -> None:
        """Remove the file."""
        self._folder.cleanup()
