"""Race detection: two instructions of different queues that touch the same words while both are
in flight are not ordered by a token, and hardware would give either result."""

from __future__ import annotations

from dataclasses import dataclass, field

Access = tuple[str, int, int]  # space, first word, one past the last


class AccessLog:
    """Ranges that the instruction being executed reads and writes; `written` holds the writes of
    the one before."""

    def __init__(self) -> None:
        self.reads: list[Access] = []
        self.writes: list[Access] = []
        self.written: list[Access] = []

    def take(self) -> tuple[list[Access], list[Access]]:
        """The ranges logged since the last call."""
        taken = self.reads, self.writes
        self.reads, self.writes, self.written = [], [], self.writes
        return taken


@dataclass(frozen=True)
class _InFlight:
    label: str
    queue: int
    done: int
    reads: list[Access]
    writes: list[Access]


def _overlap(these: list[Access], others: list[Access]) -> Access | None:
    for space, start, stop in these:
        for other, first, last in others:
            if start < last and first < stop and space == other:
                return space, max(start, first), min(stop, last)
    return None


@dataclass
class RaceDetector:
    """Keeps the instructions in flight; `start` compares a new one with those of other queues."""

    in_flight: list[_InFlight] = field(default_factory=list)

    def start(
        self, label: str, queue: int, start: int, done: int,
        reads: list[Access], writes: list[Access],
    ) -> str | None:  # fmt: skip
        """Enter an instruction that starts now; returns what it conflicts with, or None."""
        self.in_flight = [other for other in self.in_flight if other.done > start]
        conflict = None
        for other in self.in_flight:
            if other.queue == queue:
                continue
            hit = (
                _overlap(writes, other.writes)
                or _overlap(writes, other.reads)
                or _overlap(reads, other.writes)
            )
            if hit:
                space, first, stop = hit
                conflict = f"{other.label} at {space} {first}..{stop - 1}"
                break
        self.in_flight.append(_InFlight(label, queue, done, reads, writes))
        return conflict
