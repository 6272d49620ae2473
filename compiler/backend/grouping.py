"""Which input planes each part of a grouped linear operator reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Run:
    """Column blocks [first, first + blocks) that read the input planes [low, low + planes)."""

    first: int
    blocks: int
    low: int
    planes: int


def channel_places(parts: Sequence[int], group: int) -> np.ndarray:
    """Padded position of each channel of concatenated parts, each padded to whole planes."""
    places, start = [], 0
    for channels in parts:
        places.append(start + np.arange(channels))
        start += -(-channels // group) * group
    return np.concatenate(places)


def runs(
    out_channels: int, groups: int, parts: Sequence[int], group: int, columns: int, blocks: int
) -> tuple[Run, ...]:
    """The column blocks of a linear operator by the planes that they read.

    `parts` are the channels of the operand's concatenated tensors. A run starts and ends with an
    output plane. Blocks beyond the last channel have zero weights and read what the others do.
    """
    places = channel_places(parts, group)
    total = -(-(int(places[-1]) + 1) // group)
    if groups == 1:
        return (Run(0, blocks, 0, total),)
    outputs, inputs = out_channels // groups, len(places) // groups
    unit = max(columns, group)  # channels between two starts of a block and of a plane at once
    found: list[Run] = []
    for start in range(0, blocks * columns, unit):
        first_group = min(start, out_channels - 1) // outputs
        last_group = min(start + unit, out_channels) - 1
        last_group = max(last_group // outputs, first_group)
        low = int(places[first_group * inputs]) // group
        high = int(places[(last_group + 1) * inputs - 1]) // group + 1
        size = min(unit, blocks * columns - start) // columns
        before = found[-1] if found else None
        if before is not None and (before.low, before.planes) == (low, high - low):
            found[-1] = Run(before.first, before.blocks + size, low, high - low)
        else:
            found.append(Run(start // columns, size, low, high - low))
    return tuple(found)
