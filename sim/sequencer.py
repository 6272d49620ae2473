"""Sequencer: five in-order queues, tokens, and the order of events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from signmask.hw.spec import timing
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import Instruction, Queue
from signmask.sim.core import Core, Cost, Execute, Fields
from signmask.sim.errors import Fault, SimulationError
from signmask.sim.hazards import RaceDetector

Trace = Callable[[int, Instruction, int, int], None]  # index, instruction, start, done
_Pair = tuple[int, int]

# What numpy and Python raise for sizes, entry widths and indices that contradict each other.
_MALFORMED = (ValueError, TypeError, LookupError, ArithmeticError, MemoryError)


@dataclass(frozen=True)
class _Decoded:
    index: int
    instruction: Instruction
    execute: Execute
    fields: Fields
    waits: tuple[_Pair, ...]
    signals: tuple[_Pair, ...]


@dataclass(frozen=True)
class Timeline:
    """Cycles of a run and of each unit."""

    cycles: int
    busy: Mapping[str, int]


class Sequence:
    """The instructions of one phase, decoded once, by queue."""

    def __init__(
        self, phase: str, instructions: list[Instruction], units: Mapping[str, Execute],
        config: HardwareConfig,
    ) -> None:  # fmt: skip
        self.phase, self.count, self.config = phase, len(instructions), config
        self.places: list[_Pair] = []  # queue and place in it, in program order
        self.queues: tuple[list[_Decoded], ...] = tuple([] for _ in Queue)
        for index, instruction in enumerate(instructions):
            own = int(instruction.queue)
            self.places.append((own, len(self.queues[own])))
            self.queues[own].append(
                _Decoded(
                    index,
                    instruction,
                    units[instruction.name],
                    dict(instruction.fields),
                    tuple((int(other), own) for other in sorted(instruction.waits)),
                    tuple((own, int(other)) for other in sorted(instruction.signals)),
                )
            )

    def label(self, item: _Decoded) -> str:
        """How messages name an instruction."""
        return f"{self.phase} instruction {item.index} ({item.instruction.name})"


class _Run:
    """One execution of a sequence. Among the heads of the queues that have their tokens, the one
    that can start first is executed, so that data change in the order of time."""

    def __init__(
        self, sequence: Sequence, core: Core, races: RaceDetector | None, trace: Trace | None
    ) -> None:
        self.sequence, self.core, self.races, self.trace = sequence, core, races, trace
        self.depth = sequence.config.queue_depth
        self.dispatch = timing.Dispatch(sequence.config)
        self.dispatched = 0
        self.arrivals: tuple[list[int], ...] = tuple([] for _ in Queue)
        self.starts: tuple[list[int], ...] = tuple([] for _ in Queue)
        self.dones: tuple[list[int], ...] = tuple([] for _ in Queue)
        self.heads = [0] * len(Queue)
        self.free = [0] * len(Queue)
        self.busy = [0] * len(Queue)
        self.tokens: dict[_Pair, deque[int]] = {
            (source, target): deque()
            for source in range(len(Queue))
            for target in range(len(Queue))
        }
        self.end = 0

    def _hand_out(self) -> None:
        """Instructions enter their queues until one finds its queue full."""
        places = self.sequence.places
        while self.dispatched < len(places):
            queue, place = places[self.dispatched]
            before, room = place - self.depth, 0
            if before >= 0:
                if before >= self.heads[queue]:
                    return
                room = timing.queue_room(self.starts[queue][before])
            self.arrivals[queue].append(self.dispatch.head(room))
            self.dispatched += 1

    def _start_of(self, queue: int) -> int | None:
        """When the head of a queue can start; None without a head or without its tokens."""
        head, arrivals = self.heads[queue], self.arrivals[queue]
        if head == len(arrivals):
            return None
        item = self.sequence.queues[queue][head]
        start = max(self.free[queue], arrivals[head])
        if head >= timing.IN_FLIGHT:
            start = max(start, self.dones[queue][head - timing.IN_FLIGHT])
        for pair in item.waits:
            arrived = self.tokens[pair]
            if not arrived:
                return None
            start = max(start, arrived[0])
        return start

    def run(self) -> Timeline:
        for _ in range(self.sequence.count):
            self._hand_out()
            chosen, earliest = -1, 0
            for queue in range(len(Queue)):
                start = self._start_of(queue)
                if start is not None and (chosen < 0 or start < earliest):
                    chosen, earliest = queue, start
            if chosen < 0:
                raise SimulationError(self._deadlock())
            self._execute(chosen, earliest)
        for (source, target), arrived in self.tokens.items():
            if arrived:
                raise SimulationError(
                    f"{self.sequence.phase} program leaves {len(arrived)} tokens from "
                    f"{Queue(source).name} to {Queue(target).name} that the next step would take "
                    "for its own; compile the program again."
                )
        busy = {queue.name.lower(): self.busy[queue] for queue in Queue}
        return Timeline(self.end, busy)

    def _execute(self, queue: int, start: int) -> None:
        item = self.sequence.queues[queue][self.heads[queue]]
        for pair in item.waits:
            self.tokens[pair].popleft()
        self.core.cycle = start
        try:
            cost: Cost = item.execute(item.fields)
        except Fault as fault:
            raise self._error(item, str(fault)) from None
        except _MALFORMED as error:
            raise self._error(item, f"has fields that do not fit together ({error})") from error
        done = start + cost.done
        reads, writes = self.core.log.take()
        if self.races is not None:
            label = self.sequence.label(item)
            conflict = self.races.start(label, queue, start, done, reads, writes)
            if conflict:
                raise SimulationError(
                    f"{label} starts in cycle {start} without a token that orders it behind "
                    f"{conflict}; compile the program again."
                )
        for pair in item.signals:
            self.tokens[pair].append(done)
        self.heads[queue] += 1
        self.starts[queue].append(start)
        self.dones[queue].append(done)
        self.free[queue] = start + cost.occupied
        self.busy[queue] += cost.occupied
        self.end = max(self.end, done)
        if self.trace is not None:
            self.trace(item.index, item.instruction, start, done)

    def _error(self, item: _Decoded, what: str) -> SimulationError:
        self.core.log.take()
        return SimulationError(f"{self.sequence.label(item)} {what}; compile the program again.")

    def _deadlock(self) -> str:
        stuck = []
        for queue, items in zip(Queue, self.sequence.queues, strict=True):
            if self.heads[queue] < len(items):
                item = items[self.heads[queue]]
                missing = [Queue(s).name for s, _ in item.waits if not self.tokens[s, queue]]
                cause = " and ".join(missing) or "room in the queue of an earlier one"
                stuck.append(f"{self.sequence.label(item)} waits for {cause}")
        return f"deadlock: {', '.join(stuck)}; compile the program again."


def run(
    sequence: Sequence, core: Core, check_races: bool = True, trace: Trace | None = None
) -> Timeline:
    """Execute a sequence from cycle 0; raises SimulationError for a deadlock, an access outside
    a memory, or two instructions that race."""
    core.run += 1
    return _Run(sequence, core, RaceDetector() if check_races else None, trace).run()
