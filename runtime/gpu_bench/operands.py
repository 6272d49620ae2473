"""Random operands of a layer shape: what a product is timed on. Times do not depend on values, only
on which tiles are empty; how empty the deltas of a model are is measured by `tile_rates`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from signmask.reference.triton.layout import RUN, TILE, Columns, Operand, level_shape
from signmask.runtime.gpu_bench.shapes import Shape

GROUP = 16  # lanes of an encoding group: that of the bundled configurations
COARSE = 128  # side of the square tiles of the second pattern
INLIERS = (-4, 4)  # of 3 bits, upper end left out
# How empty tiles are drawn: every block of RUN x TILE for itself, or whole tiles of COARSE x COARSE
# together, which every kernel can skip.
PATTERNS = ("units", "tiles")


def columns_of(shape: Shape) -> Columns:
    """Columns of the operand of a shape."""
    return Columns((shape.in_channels,), GROUP)


@dataclass(frozen=True)
class Material:
    """Random tensors of a shape on one device. weight: int8 (out_channels, kernel, kernel,
    in_channels)."""

    shape: Shape
    images: int
    weight: Tensor

    @classmethod
    def draw(cls, shape: Shape, images: int, generator: torch.Generator) -> Material:
        """New weights."""
        size = (shape.out_channels, shape.kernel, shape.kernel, shape.in_channels)
        return cls(shape, images, random_int8(size, -128, 128, generator))

    @property
    def positions(self) -> int:
        """Positions of the operand."""
        return self.shape.positions(self.images)

    def codes(self, generator: torch.Generator) -> Operand:
        """A dense operand: every code may be any int8."""
        size = (self.positions, columns_of(self.shape).width)
        return Operand(random_int8(size, -128, 128, generator))

    def deltas(self, empty: float, pattern: str, generator: torch.Generator) -> Operand:
        """Deltas of 3 bits, a share `empty` of the blocks zero (rounded to whole blocks)."""
        columns = columns_of(self.shape)
        rows, tiles = level_shape(self.positions, columns)
        high, wide = (COARSE // RUN, COARSE // TILE) if pattern == "tiles" else (1, 1)
        coarse = (-(-rows // high), -(-tiles // wide))
        filled = filled_blocks(coarse, empty, generator)
        filled = filled.repeat_interleave(high, 0).repeat_interleave(wide, 1)[:rows, :tiles]
        elements = filled.repeat_interleave(RUN, 0).repeat_interleave(TILE, 1)[: self.positions]
        narrow = random_int8((self.positions, columns.width), *INLIERS, generator) * elements
        return Operand(
            narrow, rest=torch.zeros_like(narrow), levels=filled.to(torch.int8).contiguous()
        )


def filled_blocks(shape: tuple[int, int], empty: float, generator: torch.Generator) -> Tensor:
    """bool (rows, columns) with exactly the rounded share `empty` of False, at random places."""
    count = shape[0] * shape[1]
    order = torch.randperm(count, generator=generator, device=generator.device)
    return (order >= round(empty * count)).reshape(shape)


def random_int8(shape: tuple[int, ...], low: int, high: int, generator: torch.Generator) -> Tensor:
    """int8 in low to high - 1."""
    return torch.randint(
        low, high, shape, generator=generator, device=generator.device, dtype=torch.int8
    )
