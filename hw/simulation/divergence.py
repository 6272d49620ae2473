"""Where the RTL first differs from another machine: event, unit, cycle, element.

Both sides give typed events: `InstructionEvent`s, with the words that an instruction wrote. The
comparison replays the RTL's scratchpad writes up to each instruction's end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from signmask.hw.simulation.scratchpad_trace import Shadow
from signmask.hw.spec.isa import Instruction
from signmask.hw.spec.memory_map import MemoryMap


@dataclass(frozen=True)
class Written:
    """Words [first, first + len(values)) of a scratchpad; values: integers (words, lanes)."""

    space: str
    first: int
    values: np.ndarray


@dataclass(frozen=True)
class InstructionEvent:
    """One executed instruction: cycle of its start, cycle in which its tokens are there, and what
    it wrote into scratchpads."""

    index: int
    instruction: Instruction
    start: int
    done: int
    writes: tuple[Written, ...] = ()


@dataclass(frozen=True)
class Divergence:
    """The first difference, in the cycle in which it shows."""

    cycle: int
    unit: str
    index: int
    text: str

    def __str__(self) -> str:
        return f"cycle {self.cycle}, {self.unit} unit, instruction {self.index}: {self.text}"


def first_divergence(
    rtl: Sequence[InstructionEvent],
    other: Sequence[InstructionEvent],
    shadows: Mapping[str, Shadow],
    zero: int,
) -> Divergence | None:
    """The first event that differs, or None. `zero`: cycle of the trace files in which the program
    started. Both sequences are in program order; the shadows advance to the end of the program."""
    found = [*_times(rtl, other)]
    expected = {event.index: event for event in other}
    for shadow in shadows.values():
        shadow.read()
    for event in sorted(rtl, key=lambda event: event.done):
        for written in expected[event.index].writes:
            shadow = shadows[written.space]
            shadow.advance(zero + event.done - 1)
            if (difference := _element(event, written, shadow)) is not None:
                found.append(difference)
                break
        else:
            continue
        break
    for shadow in shadows.values():
        shadow.advance(1 << 62)
    return min(found, key=lambda d: (d.cycle, d.index), default=None)


def _times(
    rtl: Sequence[InstructionEvent], other: Sequence[InstructionEvent]
) -> Iterator[Divergence]:
    for mine, theirs in zip(rtl, other, strict=True):
        unit, text = mine.instruction.queue.name.lower(), mine.instruction.text()
        for what, a, b in (
            ("starts", mine.start, theirs.start), ("is done", mine.done, theirs.done),
        ):  # fmt: skip
            if a != b:
                yield Divergence(
                    min(a, b), unit, mine.index,
                    f"{what} in cycle {a} in the RTL and {b} in the simulator: {text}",
                )  # fmt: skip
                break


def _element(event: InstructionEvent, written: Written, shadow: Shadow) -> Divergence | None:
    words = slice(written.first, written.first + len(written.values))
    values, known = shadow.values[words], shadow.known[words]
    wrong = (values != written.values) | ~known
    if not wrong.any():
        return None
    word, lane = (int(i[0]) for i in np.nonzero(wrong))
    got = str(values[word, lane]) if known[word, lane] else "nothing"
    return Divergence(
        event.done, event.instruction.queue.name.lower(), event.index,
        f"{written.space} word {written.first + word} lane {lane} holds {got} in the RTL and "
        f"{written.values[word, lane]} in the simulator ({int(wrong.sum())} of {wrong.size} lanes "
        f"differ): {event.instruction.text()}",
    )  # fmt: skip


def memory_difference(rtl: np.ndarray, other: np.ndarray, regions: MemoryMap) -> str | None:
    """The first byte of a named region that differs after a step, or None."""
    for region in regions:
        part = slice(region.address, region.address + region.size)
        wrong = np.flatnonzero(rtl[part] != other[part])
        if wrong.size:
            at = int(wrong[0])
            return (
                f"memory region '{region.name}' differs first in byte {at} of {region.size}: "
                f"{rtl[part][at]} in the RTL and {other[part][at]} in the simulator "
                f"({wrong.size} bytes differ)"
            )
    return None
