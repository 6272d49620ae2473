"""Matrix products and implicit-GEMM convolutions on int8 tensor cores: dense, and of deltas with
empty tiles skipped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from signmask.reference.triton.layout import RUN, TILE, Columns, Operand
from signmask.reference.triton.tiles import Geometry, TileLister

OUTER = 8  # blocks of outputs that share weights in the L2 cache


@triton.jit
def operand_rows(
    output, tap, height, width, out_height, out_width, outputs,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, UPSAMPLE: tl.constexpr,
):  # fmt: skip
    """(position, inside) of the operand that each output reads through a tap."""
    if KERNEL == 1 and STRIDE == 1 and PADDING == 0 and UPSAMPLE == 1:
        position = output
        inside = output < outputs
    else:
        image = output // (out_height * out_width)
        inner = output % (out_height * out_width)
        row = (inner // out_width) * STRIDE + tap // KERNEL - PADDING
        column = (inner % out_width) * STRIDE + tap % KERNEL - PADDING
        inside = (output < outputs) & (row >= 0) & (row < height * UPSAMPLE)
        inside = inside & (column >= 0) & (column < width * UPSAMPLE)
        position = (image * height + row // UPSAMPLE) * width + column // UPSAMPLE
    return position, inside


@triton.jit(do_not_specialize=["pad"])
def matmul_kernel(
    narrow, rest, weight, out, lists, counts, wide_lists, wide_counts, pad,
    outputs, channels, columns, height, width, out_height, out_width,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, UPSAMPLE: tl.constexpr,
    SPARSE: tl.constexpr, ADD: tl.constexpr, OUTER: tl.constexpr,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """ROWS outputs and CHANNELS output channels per program; DEPTH columns of a tap at a time.

    SPARSE: only listed tiles. ADD: onto what `out` holds."""
    row_blocks = tl.cdiv(outputs, ROWS)
    channel_blocks = tl.cdiv(channels, CHANNELS)
    band = tl.program_id(0) // (OUTER * channel_blocks)
    rows_of_band = tl.minimum(row_blocks - band * OUTER, OUTER)
    within = tl.program_id(0) % (OUTER * channel_blocks)
    row_block = band * OUTER + within % rows_of_band
    channel_block = within // rows_of_band

    output = row_block * ROWS + tl.arange(0, ROWS)
    channel = channel_block * CHANNELS + tl.arange(0, CHANNELS)
    depth = tl.arange(0, DEPTH)
    blocks = columns // DEPTH
    entries = KERNEL * KERNEL * blocks
    known = channel < channels
    weight_rows = weight + channel.to(tl.int64)[None, :] * (KERNEL * KERNEL * columns)
    accumulator = tl.zeros((ROWS, CHANNELS), tl.int32)
    count = entries
    if SPARSE:
        # The rest first: one accumulator then serves both.
        for index in range(tl.load(wide_counts + row_block)):
            entry = tl.load(wide_lists + row_block * entries + index)
            position, inside = operand_rows(
                output, entry // blocks, height, width, out_height, out_width, outputs,
                KERNEL, STRIDE, PADDING, UPSAMPLE,
            )  # fmt: skip
            begin = (entry % blocks) * DEPTH
            place = position.to(tl.int64)[:, None] * columns + begin + depth[None, :]
            left = tl.load(rest + place, mask=inside[:, None], other=0)
            place = weight_rows + entry * DEPTH + depth[:, None]
            right = tl.load(place, mask=known[None, :], other=0)
            accumulator = tl.dot(left, right, accumulator, out_dtype=tl.int32)
        accumulator *= 2
        count = tl.load(counts + row_block)
    for index in range(count):
        entry = index
        if SPARSE:
            entry = tl.load(lists + row_block * entries + index)
        position, inside = operand_rows(
            output, entry // blocks, height, width, out_height, out_width, outputs,
            KERNEL, STRIDE, PADDING, UPSAMPLE,
        )  # fmt: skip
        begin = (entry % blocks) * DEPTH
        place = position.to(tl.int64)[:, None] * columns + begin + depth[None, :]
        left = tl.load(narrow + place, mask=inside[:, None], other=pad)
        place = weight_rows + entry * DEPTH + depth[:, None]
        right = tl.load(place, mask=known[None, :], other=0)
        accumulator = tl.dot(left, right, accumulator, out_dtype=tl.int32)
    place = out + output.to(tl.int64)[:, None] * channels + channel[None, :]
    valid = (output < outputs)[:, None] & known[None, :]
    if ADD:
        if count > 0:
            tl.store(place, tl.load(place, mask=valid, other=0) + accumulator, mask=valid)
    else:
        tl.store(place, accumulator, mask=valid)


@triton.jit(do_not_specialize=["pad"])
def grouped_kernel(
    narrow, rest, levels, weight, places, out, pad,
    outputs, channels, columns, tiles, height, width, out_height, out_width, inputs, group_outputs,
    KERNEL: tl.constexpr, STRIDE: tl.constexpr, PADDING: tl.constexpr, UPSAMPLE: tl.constexpr,
    DELTA: tl.constexpr, ADD: tl.constexpr, ROWS: tl.constexpr, CHANNELS: tl.constexpr,
    RUN: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Grouped and depthwise operators: too few inputs per output for tensor cores."""
    output = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    known = channel < channels
    total = tl.zeros((ROWS, CHANNELS), tl.int32)
    for tap in range(KERNEL * KERNEL):
        position, inside = operand_rows(
            output, tap, height, width, out_height, out_width, outputs,
            KERNEL, STRIDE, PADDING, UPSAMPLE,
        )  # fmt: skip
        for index in range(inputs):
            read = (channel // group_outputs) * inputs + index
            column = tl.load(places + read, mask=known, other=0)
            place = position.to(tl.int64) * columns + column
            value = tl.load(narrow + place, mask=inside & known, other=pad).to(tl.int32)
            if DELTA:
                level = tl.load(
                    levels + (position // RUN) * tiles + column // TILE,
                    mask=inside & known, other=0,
                )  # fmt: skip
                more = tl.load(rest + place, mask=inside & known & (level == 2), other=0)
                value += 2 * more.to(tl.int32)
            factor = weight + (channel * KERNEL * KERNEL + tap) * inputs + index
            total += value * tl.load(factor, mask=known, other=0).to(tl.int32)
    place = out + output.to(tl.int64) * channels + channel
    valid = (output < outputs) & known
    if ADD:
        total += tl.load(place, mask=valid, other=0)
    tl.store(place, total, mask=valid)


@dataclass(frozen=True)
class Blocks:
    """Sizes of a program of the product kernel, and how it is compiled."""

    rows: int
    channels: int
    depth: int
    warps: int = 4
    stages: int = 3

    @classmethod
    def fitting(cls, outputs: int, channels: int, columns: int) -> Blocks:
        """Sizes for a shape: large tiles unless they would leave processors idle."""
        rows = 128 if outputs >= 128 else max(RUN, triton.next_power_of_2(outputs))
        wide = max(16, min(128, triton.next_power_of_2(channels)))
        depth = next(d for d in (128, 64, TILE) if columns % d == 0)
        if rows * wide == 128 * 128:
            return cls(rows, wide, depth, warps=8)
        return cls(rows, wide, depth)


class TritonLinear:
    """One linear operator on a device.

    weight: int8 (out_channels, kernel, kernel, in_channels / groups). Results are int32 (outputs,
    out_channels).
    """

    def __init__(
        self, weight: Tensor, geometry: Geometry, columns: Columns, groups: int = 1,
        blocks: Blocks | None = None,
    ) -> None:  # fmt: skip
        self.geometry, self.columns, self.groups = geometry, columns, groups
        self.channels = len(weight)
        device = weight.device
        if groups > 1:
            self.weight = weight.reshape(self.channels, geometry.taps, -1).contiguous()
            self.places = columns.places.to(device, torch.int32)
            return
        self.blocks = blocks or Blocks.fitting(geometry.outputs, self.channels, columns.width)
        shape = (self.channels, geometry.taps, columns.width)
        self.weight = torch.zeros(shape, dtype=torch.int8, device=device)
        places = columns.places.to(device)
        self.weight[:, :, places] = weight.reshape(self.channels, geometry.taps, -1)
        self.lister = TileLister(
            geometry, columns.width, self.blocks.rows, self.blocks.depth, device
        )

    def __call__(self, operand: Operand, onto: Tensor | None = None) -> Tensor:
        """Product of an operand; with `onto` it is added to these int32 accumulators in place."""
        geometry, add = self.geometry, onto is not None
        out = onto
        if out is None:
            shape = (geometry.outputs, self.channels)
            out = torch.empty(shape, dtype=torch.int32, device=operand.narrow.device)
        sizes = (geometry.height, geometry.width, geometry.out_height, geometry.out_width)
        window = {
            "KERNEL": geometry.kernel, "STRIDE": geometry.stride, "PADDING": geometry.padding,
            "UPSAMPLE": geometry.upsample, "ADD": add,
        }  # fmt: skip
        if self.groups > 1:
            grouped_kernel[(triton.cdiv(geometry.outputs, 32), triton.cdiv(self.channels, 64))](
                operand.narrow, operand.rest, operand.levels, self.weight, self.places, out,
                operand.pad, geometry.outputs, self.channels, self.columns.width,
                self.columns.width // TILE, *sizes, self.weight.shape[2],
                self.channels // self.groups, **window,
                DELTA=operand.levels is not None, ROWS=32, CHANNELS=64, RUN=RUN, TILE=TILE,
            )  # fmt: skip
            return out
        blocks = self.blocks
        lists: tuple[Tensor | None, ...] = (None,) * 4
        if operand.levels is not None:
            made = self.lister(operand.levels)
            lists = (made.lists, made.counts, made.wide_lists, made.wide_counts)
        programs = triton.cdiv(geometry.outputs, blocks.rows) * triton.cdiv(
            self.channels, blocks.channels
        )
        matmul_kernel[(programs,)](
            operand.narrow, operand.rest, self.weight, out, *lists, operand.pad,
            geometry.outputs, self.channels, self.columns.width, *sizes, **window,
            SPARSE=operand.levels is not None, OUTER=OUTER,
            ROWS=blocks.rows, CHANNELS=blocks.channels, DEPTH=blocks.depth,
            num_warps=blocks.warps, num_stages=blocks.stages,
        )  # fmt: skip
        return out
