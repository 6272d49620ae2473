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

SCANNED = 256  # accesses compared at a time, the last ones first
GONE = 1 << 62  # start of an access that is forgotten, so that nothing meets it


@dataclass(frozen=True)
class PhaseCode:
    """Assembled instructions of a phase, and the layer that each of them works for.

    code: uint8 (instructions, 32). layer: int32 (instructions,), an index of `layers`.
    """

    code: np.ndarray
    layer: np.ndarray
    layers: tuple[str, ...]


class _Accesses:
    """Live accesses of one kind, reads or writes, by one queue to one address space, in program
    order: [start, end) and the index of the instruction."""

    def __init__(self) -> None:
        self._rows = np.zeros((3, 64), np.int64)
        self._count = self._gone = 0

    def latest(self, low: int, high: int, after: int) -> int:
        """Index of the last instruction that accesses [low, high), -1 if none is beyond `after`."""
        start, end, index = self._rows[:, : self._count]
        at = self._count
        while at > 0 and index[at - 1] > after:
            first = max(0, at - SCANNED)
            hits = np.flatnonzero((start[first:at] < high) & (end[first:at] > low))
            if len(hits):
                found = int(index[first + hits[-1]])
                return found if found > after else -1
            at = first
        return -1

    def add(self, low: int, high: int, index: int) -> None:
        """Record an access."""
        if self._count == self._rows.shape[1]:
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)], axis=1)
        self._rows[:, self._count] = low, high, index
        self._count += 1

    def forget(self, low: int, high: int) -> None:
        """Drop accesses within [low, high), where a later write has taken their place."""
        start, end, _ = self._rows[:, : self._count]
        covered = np.flatnonzero((start >= low) & (end <= high))
        if not len(covered):
            return
        start[covered], end[covered] = GONE, -1
        self._gone += len(covered)
        if 2 * self._gone > self._count:
            kept = self._rows[:, : self._count][:, end != -1]
            self._count, self._gone = kept.shape[1], 0
            self._rows[:, : self._count] = kept


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
        self._spaces: dict[str, dict[tuple[Queue, bool], _Accesses]] = {}
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
            self._collect(block, queue, latest, writers_only=True)
        for block in writes:
            self._collect(block, queue, latest, writers_only=False)
        waits = set()
        for other, source in latest.items():
            self._seen[(other, queue)] = source
            waits.add(other)
            set_signal(self._code, source, queue)
        self._code += Instruction(name, fields, frozenset(waits)).encode()
        self._layer_of.append(self._layer)
        for block in reads:
            self._record(block, queue, index, is_write=False)
        for block in writes:
            for accesses in self._spaces[block.space].values():
                accesses.forget(block.start, block.start + block.words)
            self._record(block, queue, index, is_write=True)

    def assembled(self) -> PhaseCode:
        """All instructions so far."""
        code = np.frombuffer(bytes(self._code), np.uint8).reshape(-1, INSTRUCTION_BYTES)
        return PhaseCode(code, np.array(self._layer_of, np.int32), tuple(self._layers))

    def _collect(
        self, block: Block, queue: Queue, latest: dict[Queue, int], writers_only: bool
    ) -> None:
        """Take the last conflicting instruction of each other queue that was not waited for."""
        end = block.start + block.words
        for (other, is_write), accesses in self._spaces.setdefault(block.space, {}).items():
            if other is queue or (writers_only and not is_write):
                continue
            known = max(latest.get(other, -1), self._seen.get((other, queue), -1))
            found = accesses.latest(block.start, end, known)
            if found > known:
                latest[other] = found

    def _record(self, block: Block, queue: Queue, index: int, is_write: bool) -> None:
        lanes = self._spaces[block.space]
        if (queue, is_write) not in lanes:
            lanes[queue, is_write] = _Accesses()
        lanes[queue, is_write].add(block.start, block.start + block.words, index)
