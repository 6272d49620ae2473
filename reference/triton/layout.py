"""Layout of the operands of linear operators on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

RUN = 16  # consecutive positions whose deltas share a level
TILE = 32  # consecutive columns that share it: what an int8 tensor core takes at least


@dataclass(frozen=True)
class Columns:
    """Columns of an operand: its parts (streams) one after the other, each filled up with zeros to
    whole groups and tiles."""

    parts: tuple[int, ...]  # channels of each
    group: int

    @property
    def unit(self) -> int:
        """Columns that every part is a multiple of."""
        return max(self.group, TILE)

    @property
    def starts(self) -> tuple[int, ...]:
        """First column of each part."""
        sizes = [-(-size // self.unit) * self.unit for size in self.parts]
        return tuple(int(n) for n in np.cumsum([0, *sizes])[:-1])

    @property
    def width(self) -> int:
        """Columns of the operand."""
        return sum(-(-size // self.unit) * self.unit for size in self.parts)

    @property
    def places(self) -> Tensor:
        """int64 (channels,): the column of each channel."""
        runs = [s + torch.arange(n) for s, n in zip(self.starts, self.parts, strict=True)]
        return torch.cat(runs)


@dataclass(frozen=True)
class Operand:
    """What a linear operator reads: raw codes, or deltas = narrow + 2 * rest.

    narrow, rest: int8 (positions, columns). levels: int8 (runs, tiles): 0 where all deltas of RUN
    positions and TILE columns are zero, 1 where all are int8, 2 where `rest` counts; elsewhere
    `rest` is 0. Codes have no rest and no levels; outside the image they count as `pad`.
    """

    narrow: Tensor
    pad: int = 0
    rest: Tensor | None = None
    levels: Tensor | None = None


def level_shape(positions: int, columns: Columns) -> Sequence[int]:
    """Shape of the levels of an operand."""
    return (-(-positions // RUN), columns.width // TILE)
