"""Collects instructions with what they read and write, and derives the dependency tokens."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from signmask.compiler.backend.scratchpad import Block
from signmask.hw.spec.isa import Instruction, Queue


@dataclass
class _Accesses:
    """Live accesses of one address space: (start, end, instruction, is_write)."""

    entries: list[tuple[int, int, int, bool]] = field(default_factory=list)


class ProgramBuilder:
    """Instructions in program order.

    A dependency is a read of what an earlier instruction writes, or a write to what an earlier one
    reads or writes. Within a queue order is enough; across queues the earlier instruction signals
    and the later one waits. For a pair of queues only the latest earlier instruction matters, and
    waits are monotone, so the k-th wait meets the k-th signal.
    """

    def __init__(self) -> None:
        self.instructions: list[Instruction] = []
        self.layers: list[str] = []  # of each instruction, for the report
        self._layer = ""
        self._spaces: dict[str, _Accesses] = {}
        self._seen: dict[tuple[Queue, Queue], int] = {}

    @contextmanager
    def layer(self, name: str) -> Iterator[None]:
        """Instructions emitted meanwhile work for this layer."""
        before, self._layer = self._layer, name
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
        """Append one instruction; Blocks may lie in scratchpads or in memory regions (bytes)."""
        index = len(self.instructions)
        queue = Instruction(name).queue
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
            old = self.instructions[source]
            self.instructions[source] = replace(old, signals=old.signals | {queue})
        self.instructions.append(Instruction(name, fields, frozenset(waits), frozenset()))
        self.layers.append(self._layer)
        for block in reads:
            self._record(block, index, is_write=False)
        for block in writes:
            self._record(block, index, is_write=True)

    def _collect(self, block: Block, latest: dict[Queue, int], writers_only: bool) -> None:
        low, high = block.start, block.start + block.words
        for start, end, index, is_write in self._spaces.setdefault(
            block.space, _Accesses()
        ).entries:
            if start < high and low < end and (is_write or not writers_only):
                queue = self.instructions[index].queue
                if latest.get(queue, -1) < index:
                    latest[queue] = index

    def _record(self, block: Block, index: int, is_write: bool) -> None:
        accesses = self._spaces[block.space]
        low, high = block.start, block.start + block.words
        if is_write:
            accesses.entries = [e for e in accesses.entries if e[0] < low or e[1] > high]
        accesses.entries.append((low, high, index, is_write))
