"""Kernels that are bound by memory: delta encode, and the epilogue that updates a stream."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from signmask.reference.triton.layout import Columns, Operand, level_shape
from signmask.runtime.gpu_bench.ceilings import Ceilings
from signmask.runtime.gpu_bench.operands import GROUP
from signmask.runtime.gpu_bench.shapes import Shape
from signmask.runtime.gpu_bench.timing import Bench, Work

# Bytes per element that a pass reads and writes, by tensor; int16 streams, int32 products.
# What there is one of per channel or per block is left out.
BYTES = {
    "encode mask": {"y": 2, "dy": 2, "sent": 4, "narrow": 1, "segments": 2},
    "encode restore": {"y": 2, "sent": 4, "narrow": 1},
    "encode codes": {"y": 2, "sent": 2, "narrow": 1},
    "update dense": {"product": 4, "addend": 2, "y": 2},
    "update delta": {"product": 4, "addend": 2, "y": 4, "dy": 2},
}
SEGMENTS = 8  # of the default mask
INLIER_BITS, FULL_LANES = 3, 2  # of the bundled configurations


def pass_rows(
    bench: Bench, shape: Shape, images: int, ceilings: Ceilings
) -> Iterator[dict[str, Any]]:
    """Every pass over a tensor of the shape's results."""
    elements = shape.positions(images) * shape.out_channels
    for name, parts in BYTES.items():
        size = elements * sum(parts.values())
        make = encode_call if name.startswith("encode") else update_call
        timing = bench.time(partial(make, bench, shape, images, name), size)
        yield {
            "pass": name, "height": shape.height, "width": shape.width,
            "channels": shape.out_channels, "images": images, "device": bench.name,
            **asdict(timing), "bytes": size,
            "share_of_copy_bandwidth": size / timing.seconds / ceilings.copy,
        }  # fmt: skip


def encode_call(bench: Bench, shape: Shape, images: int, name: str, number: int) -> Work:
    """Set `number` of an encoding. Repeated on the same values its deltas fall to zero; what it
    reads and writes stays the same but for `rest`, which int8 deltas do not have."""
    from signmask.reference.triton.encode import (
        CODES,
        RESTORED,
        Activation,
        Encoded,
        Format,
        Values,
        encode,
    )

    generator, device = bench.generator(number), bench.device
    positions, columns = shape.positions(images), Columns((shape.out_channels,), GROUP)
    form = Format(columns, INLIER_BITS, FULL_LANES, spill=True)
    size = (positions, shape.out_channels)
    y = random_integers(size, 2000, generator, torch.int16)
    dy = random_integers(size, 20, generator, torch.int16)

    def tensor(values: list[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=device)

    # z = y and code = z / 16: codes of y fill int8, and those of dy are inliers.
    breaks = [500 * (n - SEGMENTS // 2) for n in range(1, SEGMENTS)]
    table = (tensor(breaks), tensor([256] * SEGMENTS), tensor([0] * SEGMENTS))
    activation = Activation(*table, z_shift=8, code_shift=12, low=-128, high=127)
    gains = torch.full((images, shape.out_channels), 256, dtype=torch.int64, device=device)
    raw = Values(y=y, a=gains, b=torch.zeros_like(gains), activation=activation)
    narrow = torch.empty((positions, columns.width), dtype=torch.int8, device=device)
    counts = torch.zeros(4, dtype=torch.int32, device=device)
    state = Encoded(Operand(narrow), torch.empty_like(narrow, dtype=torch.int16), counts)
    encode(0, raw, state, form, CODES, images)
    if name == "encode codes":
        return lambda: encode(0, raw, state, form, CODES, images)
    levels = narrow.new_empty(tuple(level_shape(positions, columns)))
    state.operand = Operand(narrow, rest=torch.zeros_like(narrow), levels=levels)
    if name == "encode restore":
        return lambda: encode(0, raw, state, form, RESTORED, images)
    state.segments = state.last_segments = torch.zeros_like(narrow)
    values = Values(y=y, dy=dy, a=gains, b=raw.b, activation=activation)
    return lambda: encode(0, values, state, form, RESTORED, images)


def update_call(bench: Bench, shape: Shape, images: int, name: str, number: int) -> Work:
    """Set `number` of the update of a stream: one product, one addend, sums for a norm."""
    from signmask.reference.triton.stream import Product, update_stream

    generator, device = bench.generator(number), bench.device
    size = (shape.positions(images), shape.out_channels)
    multiplier = torch.full(size[1:], 1024, dtype=torch.int64, device=device)
    product = Product(random_integers(size, 100_000, generator, torch.int32), multiplier, 20)
    addend = random_integers(size, 100, generator, torch.int16)
    table = torch.zeros((1, *size[1:]), dtype=torch.int32, device=device)
    saturated = torch.zeros(1, dtype=torch.int32, device=device)
    if name == "update dense":
        return lambda: update_stream(
            [product], [addend], table, 16, images, saturated, stat_shift=4
        )  # fmt: skip
    last = random_integers(size, 2000, generator, torch.int16)
    return lambda: update_stream(
        [product], [addend], table, 16, images, saturated, stat_shift=4, table_last=table,
        y_last=last,
    )  # fmt: skip


def random_integers(
    shape: tuple[int, ...], bound: int, generator: torch.Generator, dtype: torch.dtype
) -> Tensor:
    """Integers within +-bound."""
    return torch.randint(
        -bound, bound + 1, shape, generator=generator, device=generator.device, dtype=dtype
    )
