"""Collects instructions with what they read and write, and derives the dependency tokens."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from signmask.compiler.backend.scratchpad import Block
from signmask.hw.spec.isa import (
    FORMATS,
    INSTRUCTION_BYTES,
    Instruction,
    Queue,
    set_signal,
)


@dataclass(frozen=True)
class PhaseCode:
    """Assembled instructions of a phase, and the layer that each of them works for.

    code: uint8 (instructions, 32). layer: int32 (instructions,), an index of `layers`.
    """

    code: np.ndarray
    layer: np.ndarray
    layers: tuple[str, ...]


class _Accesses:
    """Live accesses of one address space, in no order: [start, end), and the columns of `_facts`:
    instruction, queue, is_write."""

    def __init__(self) -> None:
        self._start, self._end = np.zeros(64, np.int64), np.zeros(64, np.int64)
        self._facts = np.zeros((64, 3), np.int64)
        self._count = 0

    def conflicts(self, low: int, high: int, writers_only: bool) -> np.ndarray:
        """(instruction, queue) of the accesses to [low, high)."""
        count = self._count
        hit = np.flatnonzero((self._start[:count] < high) & (self._end[:count] > low))
        facts = self._facts[hit]
        return facts[facts[:, 2] == 1, :2] if writers_only else facts[:, :2]

    def add(self, low: int, high: int, index: int, queue: int, is_write: bool) -> None:
        """Record an access; a write makes those that it covers unimportant."""
        if is_write:
            count = self._count
            covered = np.flatnonzero((self._start[:count] >= low) & (self._end[:count] <= high))
            for place in covered[::-1].tolist():
                self._count -= 1
                self._move(self._count, place)
        if self._count == len(self._start):
            self._start, self._end = np.tile(self._start, 2), np.tile(self._end, 2)
            self._facts = np.tile(self._facts, (2, 1))
        self._start[self._count], self._end[self._count] = low, high
        self._facts[self._count] = index, queue, is_write
        self._count += 1

    def _move(self, source: int, goal: int) -> None:
        self._start[goal], self._end[goal] = self._start[source], self._end[source]
        self._facts[goal] = self._facts[source]


class ProgramBuilder:
    """Instructions in program order, assembled as they come: attention over the frames of a video
    takes millions.

    A dependency is a read of what an earlier instruction writes, or a write to what an earlier one
    reads or writes. Within a queue order is enough; across queues the earlier instruction signals
    and the later one waits. For a pair of queues only the latest earlier instruction matters, and
    waits are monotone, so the k-th wait meets the k-th signal.
    """

    def __init__(self) -> None:
        self._code = bytearray()
        self._layer_of = array("i")
        self._layers: dict[str, int] = {"": 0}
        self._layer = 0
        self._spaces: dict[str, _Accesses] = {}
        self._seen: dict[tuple[Queue, Queue], int] = {}

    @contextmanager
    def layer(self, name: str) -> Iterator[None]:
        """Instructions emitted meanwhile work for this layer."""
        before, self._layer = self._layer, self._layers.setdefault(name, len(self._layers))
        try:
            yield
        finally:
            self._layer = before

    def emit(
        self,
        name: str,
        fields: dict[str, int],
        reads: Iterable[Block] = (),
        writes: Iterable[Block] = (),
    ) -> None:
        """Append one instruction; Blocks may lie in scratchpads or in memory regions (bytes).

        Raises IsaError for a field that is missing, unknown or out of range.
        """
        index = len(self._layer_of)
        queue = FORMATS[name].queue
        latest: dict[Queue, int] = {}
        reads, writes = list(reads), list(writes)
        for block in reads:
            self._collect(block, latest, writers_only=True)
        for block in writes:
            self._collect(block, latest, writers_only=False)
        waits = set()
        for other, source in latest.items():
            if other is queue or self._seen.get((other, queue), -1) >= source:
                continue
            self._seen[(other, queue)] = source
            waits.add(other)
            set_signal(self._code, source, queue)
        self._code += Instruction(name, fields, frozenset(waits)).encode()
        self._layer_of.append(self._layer)
        for blocks, is_write in ((reads, False), (writes, True)):
            for block in blocks:
                end = block.start + block.words
                self._spaces[block.space].add(block.start, end, index, int(queue), is_write)

    def assembled(self) -> PhaseCode:
        """All instructions so far."""
        code = np.frombuffer(bytes(self._code), np.uint8).reshape(-1, INSTRUCTION_BYTES)
        return PhaseCode(code, np.array(self._layer_of, np.int32), tuple(self._layers))

    def _collect(self, block: Block, latest: dict[Queue, int], writers_only: bool) -> None:
        accesses = self._spaces.setdefault(block.space, _Accesses())
        end = block.start + block.words
        for index, number in accesses.conflicts(block.start, end, writers_only).tolist():
            queue = Queue(number)
            if latest.get(queue, -1) < index:
                latest[queue] = index
