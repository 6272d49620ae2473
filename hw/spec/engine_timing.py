"""Cycles of the near-data engine: the rules of its control, frame by frame.

The engine fetches, computes and writes *frames* of up to `frame_words` words. The simulator charges
what these functions give; the RTL takes its dimensions from here and must meet them. Cycle 0 is the
start of the instruction, `latency` the near-data latency.

A *load* is the cycle in which a controller takes its next task; the task is worked on in the cycles
that follow, and the next load may fall into the last of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from signmask.hw.spec.config import HardwareConfig

READ_SLOTS = 7  # frames between their fetch and their last read from the buffers
WRITE_SLOTS = 4  # frames between their first word and the last beat that leaves the buffers
LOOKAHEAD = 4  # frames whose areas are asked for before the first one's lists
SEGMENT_WORDS = 3
DESCRIPTOR_UNIT = 64  # bytes of a descriptor that are taken at once

# Stages of a word, from its issue: last read of a read buffer, last push to a write buffer.
FREE_STAGE = {"PREPARE": 8, "UPDATE_CODES": 11, "UPDATE_STREAM": 2, "READ": 0}
FINISH_STAGE = {"PREPARE": 13, "UPDATE_CODES": 14, "UPDATE_STREAM": 9, "READ": 5}

FIRST_LOAD = 2  # of the descriptor's request
ARRIVAL = 1  # from the cycle of a beat until what it completes can be loaded
KNOWN = 6  # from the last read of a descriptor line to the first load after it
COMPLETE = 3  # from the last read of a table word until it is in the table memory
CONSTANTS_LOAD = 2  # from complete tables, or the end of the normalisation, to a load of words
SCANNED = 4  # from the last word that is scanned to the load of its lists
WRITTEN = 2  # from the cycle of a beat in the write buffer to the end of the instruction


class Table(NamedTuple):
    """A table or descriptor: its place within a beat, its bytes, and how many are taken at once."""

    low: int
    size: int
    unit: int


class Frames(NamedTuple):
    """Cycles per frame, int arrays of one length: words; the read channel until the areas that are
    scanned are asked for, for all areas, and for lists; the write channel. Gains of PREPARE follow
    the body as frames without reads: `words` and `writes` are longer by them.
    `rest`: cycles of the write channel after the last beat.
    """

    words: np.ndarray
    scans: np.ndarray
    areas: np.ndarray
    lists: np.ndarray | None
    writes: np.ndarray
    rest: int


def frame_words(config: HardwareConfig) -> int:
    """Most words of a frame: a power of two, of which one bit per lane fits a beat."""
    words = max(1, 8 * config.near_data_bytes // config.group)
    return 1 << (words.bit_length() - 1)


def table_words(
    config: HardwareConfig, planes: int, images: int, groups: int, norm: str, loop: str,
    segments: bool, stepped: bool = False,
) -> int:  # fmt: skip
    """Words of the table memory that a boundary needs, at most `config.engine_words` of them.

    `planes` of all parts; `norm` and `loop` as in `isa`; segments: it has segment bits; stepped:
    its norm's gain and offset have a row per step.
    """
    constants = planes * (1 if norm == "affine" else images)
    own = SEGMENT_WORDS  # what both instructions read first
    if norm != "trend":
        averaged = norm == "calibrated" and loop != "closed"
        return own + max(constants, planes * (4 if averaged else 2))
    pairs = 2 * constants if segments or loop == "closed" else 0
    gains = 0 if loop == "closed" else constants
    statistics = 2 * planes + 2 * constants + 4 * -(-groups // config.group)
    if stepped and segments and loop != "closed":
        statistics += planes  # the gain of this step beside that of the last one
    return own + statistics + pairs + gains


def read_beats(config: HardwareConfig, sizes: np.ndarray, starts: np.ndarray, lows: np.ndarray
               ) -> np.ndarray:  # fmt: skip
    """Beats that each frame asks for: those that hold its `sizes` bytes and were not read before.

    A frame where `starts` is set begins at byte lows[i] of a new beat, i its number among these.
    """
    ends, region = _ends(sizes, starts, lows)
    need = np.where(ends > lows[region], -(-ends // config.near_data_bytes), 0)
    return _differences(need, starts)


def write_beats(
    config: HardwareConfig, sizes: np.ndarray, starts: np.ndarray, lows: np.ndarray,
    flushed: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Beats that each frame completes; where `flushed` is set, a part-filled one as well."""
    ends, region = _ends(sizes, starts, lows)
    full = ends // config.near_data_bytes
    part = (ends % config.near_data_bytes > 0) & (ends > lows[region]) & flushed
    return _differences(full + part, starts)


def _ends(sizes: np.ndarray, starts: np.ndarray, lows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    region = np.cumsum(starts) - 1
    total = np.cumsum(sizes)
    before = (total - sizes)[starts]
    return total - before[region] + lows[region], region


def _differences(counts: np.ndarray, starts: np.ndarray) -> np.ndarray:
    previous = np.concatenate([[0], counts[:-1]])
    return counts - np.where(starts, 0, previous)


def _tables(config: HardwareConfig, load: int, tables: Sequence[Table]) -> tuple[int, int]:
    """(first load after the tables' requests, cycle of the last word's read from the buffer)."""
    beat, latency, read = config.near_data_bytes, config.near_data_latency, 0
    for low, size, unit in tables:
        # Words leave the buffer one per cycle: beats of several words are asked for more slowly.
        pace = max(1, beat // unit)
        for start in range(0, size, unit):
            last = (low + min(start + unit, size) - 1) // beat
            read = max(read + 1, load + 1 + last * pace + latency + ARRIVAL)
        load += -(-(low + size) // beat) * pace
    return load, read


def engine(
    config: HardwareConfig, operation: str, descriptor: Table, tables: Sequence[Table],
    runs: Sequence[int], frames: Frames,
) -> int:  # fmt: skip
    """Cycles of an instruction; `runs` are the cycles of each run of the normalisation unit."""
    _, read = _tables(config, FIRST_LOAD, [descriptor])
    known = read + KNOWN
    load, complete = known, known
    if tables:
        load, read = _tables(config, known, tables)
        complete = max(known, read + COMPLETE)
    constants = complete + CONSTANTS_LOAD + sum(runs)
    return _frames(config, operation, load, constants, frames)


def _frames(
    config: HardwareConfig, operation: str, load: int, constants: int, frames: Frames
) -> int:
    """Cycle after the last response, with the first frame's request not before `load`."""
    latency, free = config.near_data_latency, FREE_STAGE[operation] + 1
    finish = FINISH_STAGE[operation] + 1
    words, writes = frames.words.tolist(), frames.writes.tolist()
    scans, areas = frames.scans.tolist(), frames.areas.tolist()
    lists = None if frames.lists is None else frames.lists.tolist()
    body = len(areas)
    arrived, scanned = [0] * body, [0] * body
    computed: list[int] = []  # load of the frame after
    drained: list[int] = []
    compute, drain, scan, sent = constants, 0, 0, 0
    asked = 0  # frames whose areas have been asked for

    def ask_areas() -> None:
        nonlocal load, scan, asked
        i = asked
        if i >= READ_SLOTS:
            load = max(load, computed[i - READ_SLOTS] + free)
        if lists is None:
            arrived[i] = load + areas[i] + latency + ARRIVAL
        else:
            scan = max(scan, load + scans[i] + latency + ARRIVAL) + words[i]
            scanned[i] = scan + SCANNED
        load += areas[i]
        asked += 1

    for i, count in enumerate(words):
        # All requests that come before the last one of this frame.
        if i < body:
            ahead = LOOKAHEAD if lists is not None else 1
            while asked < min(body, i + ahead):
                ask_areas()
            if lists is not None:
                load = max(load, scanned[i]) + lists[i]
                arrived[i] = load + latency + ARRIVAL
            compute = max(compute, arrived[i])
        if i >= WRITE_SLOTS:
            compute = max(compute, drained[i - WRITE_SLOTS] + 1)
        compute += count
        computed.append(compute)
        drain = max(drain, compute + finish) + writes[i]
        drained.append(drain)
    sent = drain - frames.rest
    return max(drain + 1, sent + latency + WRITTEN) + 1
