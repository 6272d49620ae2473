"""Compile-time allocation of a scratchpad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Block:
    """Words [start, start + words) of the scratchpad `space`."""

    space: str
    start: int
    words: int

    def part(self, offset: int, words: int) -> Block:
        """A piece of the block."""
        return Block(self.space, self.start + offset, words)


class Scratchpad:
    """Next-fit allocation in program order.

    A block may be given away again as soon as its last use has been emitted: the token pass makes
    the new owner wait for the old one. Next-fit spreads allocations, so that waits are rare.
    """

    def __init__(self, space: str, words: int) -> None:
        self.space = space
        self.words = words
        self._live: list[Block] = []  # sorted by start
        self._cursor = 0
        self.peak = 0

    def allocate(self, words: int) -> Block | None:
        """A free block, or None where none is large enough."""
        start = self._find(words, self._cursor, self.words)
        if start is None:
            start = self._find(words, 0, self.words)
        if start is None:
            return None
        block = Block(self.space, start, words)
        self._live.append(block)
        self._live.sort(key=lambda b: b.start)
        self._cursor = start + words
        self.peak = max(self.peak, sum(b.words for b in self._live))
        return block

    def _find(self, words: int, low: int, high: int) -> int | None:
        at = low
        for block in self._live:
            if block.start + block.words <= at:
                continue
            if block.start - at >= words:
                return at
            at = max(at, block.start + block.words)
        return at if high - at >= words else None

    def free(self, block: Block) -> None:
        """Give the block back; raises ValueError if it is not live."""
        self._live.remove(block)

    def largest_gap(self, leaving: Sequence[Block] = ()) -> int:
        """Words of the largest free run, once the blocks `leaving` were given back."""
        at = best = 0
        for block in self._live:
            if block in leaving:
                continue
            best = max(best, block.start - at)
            at = block.start + block.words
        return max(best, self.words - at)
