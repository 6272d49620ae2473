"""Which tiles of a delta operand hold anything: compacted lists for each block of outputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from signmask.hw.spec.network import CodeSource, Encoding, Linear
from signmask.reference.triton.layout import RUN, TILE


@dataclass(frozen=True)
class Geometry:
    """Positions that a linear operator reads and writes, for one batch."""

    images: int
    height: int
    width: int
    out_height: int
    out_width: int
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    upsample: int = 1

    @classmethod
    def of(cls, linear: Linear, source: Encoding | CodeSource, images: int) -> Geometry:
        """That of an operator; a product per position sees its positions as one row."""
        if linear.kernel == linear.stride == linear.upsample == 1 and not linear.padding:
            positions = source.height * source.width
            return cls(images, 1, positions, 1, positions)
        return cls(
            images, source.height, source.width, linear.out_height, linear.out_width,
            linear.kernel, linear.stride, linear.padding, linear.upsample,
        )  # fmt: skip

    @property
    def positions(self) -> int:
        """Positions of the operand."""
        return self.images * self.height * self.width

    @property
    def outputs(self) -> int:
        """Positions of the result."""
        return self.images * self.out_height * self.out_width

    @property
    def taps(self) -> int:
        """Positions of the kernel."""
        return self.kernel**2

    def runs(self, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """int32 (blocks, taps): the first run of operand positions that a block of `rows` outputs
        may read through a tap, and the one after the last (equal: none)."""
        output = np.arange(self.outputs)
        image, inner = np.divmod(output, self.out_height * self.out_width)
        y, x = np.divmod(inner, self.out_width)
        tap = np.arange(self.taps)[:, None]
        sizes = (self.height * self.upsample, self.width * self.upsample)
        row = y * self.stride + tap // self.kernel - self.padding
        column = x * self.stride + tap % self.kernel - self.padding
        inside = (row >= 0) & (row < sizes[0]) & (column >= 0) & (column < sizes[1])
        row, column = row // self.upsample, column // self.upsample
        read = (image * self.height + row) * self.width + column
        blocks = -(-self.outputs // rows)
        fill = ((0, 0), (0, blocks * rows - self.outputs))
        shape = (self.taps, blocks, rows)
        low = np.pad(np.where(inside, read, self.positions), fill, constant_values=self.positions)
        high = np.pad(np.where(inside, read, -1), fill, constant_values=-1)
        first = low.reshape(shape).min(2) // RUN
        last = high.reshape(shape).max(2) // RUN + 1
        return (
            np.minimum(first, last).T.astype(np.int32).copy(),
            last.T.astype(np.int32).copy(),
        )


@triton.jit
def list_kernel(
    levels, first, last, lists, counts, wide_lists, wide_counts, most_runs, tiles,
    TAPS: tl.constexpr, BLOCKS: tl.constexpr, STEP: tl.constexpr, ENTRIES: tl.constexpr,
):  # fmt: skip
    """Entries (tap * BLOCKS + block of columns) of one block of outputs that are not empty, and
    those of them that need the rest."""
    block = tl.program_id(0)
    entry = tl.arange(0, ENTRIES)
    tap = entry // BLOCKS
    known = entry < TAPS * BLOCKS
    low = tl.load(first + block * TAPS + tap, mask=known, other=0)
    high = tl.load(last + block * TAPS + tap, mask=known, other=0)
    level = tl.zeros((ENTRIES,), tl.int32)
    for run in range(most_runs):
        for step in tl.static_range(STEP):
            place = levels + (low + run) * tiles + (entry % BLOCKS) * STEP + step
            here = tl.load(place, mask=known & (low + run < high), other=0).to(tl.int32)
            level = tl.maximum(level, here)
    start = block * TAPS * BLOCKS
    active = (level > 0).to(tl.int32)
    place = lists + start + tl.cumsum(active, 0) - 1
    tl.store(place, entry, mask=active == 1)
    tl.store(counts + block, tl.sum(active))
    wide = (level > 1).to(tl.int32)
    place = wide_lists + start + tl.cumsum(wide, 0) - 1
    tl.store(place, entry, mask=wide == 1)
    tl.store(wide_counts + block, tl.sum(wide))


@dataclass(frozen=True)
class TileLists:
    """Compacted lists: int32 (blocks, entries) and (blocks,); `wide` are those with a rest."""

    lists: Tensor
    counts: Tensor
    wide_lists: Tensor
    wide_counts: Tensor

    def filled(self) -> float:
        """Share of tiles that are not empty."""
        return float(self.counts.sum()) / self.lists.numel()


class TileLister:
    """Makes the lists of one operator; what depends on its geometry alone is made once."""

    def __init__(
        self, geometry: Geometry, columns: int, rows: int, depth: int, device: torch.device
    ) -> None:
        """Blocks of `rows` outputs; tiles of `depth` columns."""
        first, last = geometry.runs(rows)
        self.first = torch.from_numpy(first).to(device)
        self.last = torch.from_numpy(last).to(device)
        self.most_runs = max(1, int((last - first).max()))
        self.blocks, self.taps = first.shape
        self.depth, self.columns = depth, columns

    def __call__(self, levels: Tensor) -> TileLists:
        """Lists for the levels of an operand, int8 (runs, columns / TILE)."""
        blocks = self.columns // self.depth
        entries = self.taps * blocks
        made = TileLists(
            *[
                torch.empty(shape, dtype=torch.int32, device=levels.device)
                for shape in ((self.blocks, entries), (self.blocks,)) * 2
            ]
        )
        list_kernel[(self.blocks,)](
            levels, self.first, self.last, made.lists, made.counts, made.wide_lists,
            made.wide_counts, self.most_runs, self.columns // TILE,
            TAPS=self.taps, BLOCKS=blocks, STEP=self.depth // TILE,
            ENTRIES=triton.next_power_of_2(entries),
        )  # fmt: skip
        return made
