"""Fused epilogue of a stream: requantise what its operators made, add, saturate, keep y and its
sums up to date (`docs/numerics.md`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from signmask.reference import arithmetic
from signmask.reference.triton import numerics

MOST = 3  # products, and addends, of one launch; more are added up before
ROWS, COLUMNS = 32, 64


@triton.jit(do_not_specialize=["shift_0", "shift_1", "shift_2", "stat_shift"])
def stream_kernel(
    product_0, product_1, product_2, multiplier_0, multiplier_1, multiplier_2,
    shift_0, shift_1, shift_2, addend_0, addend_1, addend_2, rest, table, table_last, offset,
    y_last, y, dy, sums, saturated,
    image_positions, channels, table_rows, offset_rows, stat_shift,
    PRODUCTS: tl.constexpr, ADDENDS: tl.constexpr, REST: tl.constexpr, OFFSET: tl.constexpr,
    DELTA: tl.constexpr, SUMS: tl.constexpr, BITS: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """ROWS positions of one image and COLUMNS channels per program. DELTA: products are changes,
    and y advances from y_last by dy; else y is their sum."""
    blocks = tl.cdiv(image_positions, ROWS)
    image = tl.program_id(0) // blocks
    row = (tl.program_id(0) % blocks) * ROWS + tl.arange(0, ROWS)[:, None]
    channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    known = channel < channels
    valid = (row < image_positions) & known
    here = (image * image_positions + row).to(tl.int64) * channels + channel

    constant = (image % table_rows) * channels + channel
    entry = tl.load(table + constant, mask=known, other=0).to(tl.int64)
    if DELTA:
        entry -= tl.load(table_last + constant, mask=known, other=0).to(tl.int64)
    total = entry + tl.zeros((ROWS, COLUMNS), tl.int64)
    if OFFSET:
        at = ((image % offset_rows) * image_positions + row).to(tl.int64) * channels + channel
        total += tl.load(offset + at, mask=valid, other=0).to(tl.int64)
    if PRODUCTS > 0:
        scale = tl.load(multiplier_0 + channel, mask=known, other=0).to(tl.int64)
        value = tl.load(product_0 + here, mask=valid, other=0)
        total += numerics.requantise(value, scale, shift_0)
    if PRODUCTS > 1:
        scale = tl.load(multiplier_1 + channel, mask=known, other=0).to(tl.int64)
        value = tl.load(product_1 + here, mask=valid, other=0)
        total += numerics.requantise(value, scale, shift_1)
    if PRODUCTS > 2:
        scale = tl.load(multiplier_2 + channel, mask=known, other=0).to(tl.int64)
        value = tl.load(product_2 + here, mask=valid, other=0)
        total += numerics.requantise(value, scale, shift_2)
    if ADDENDS > 0:
        total += tl.load(addend_0 + here, mask=valid, other=0).to(tl.int64)
    if ADDENDS > 1:
        total += tl.load(addend_1 + here, mask=valid, other=0).to(tl.int64)
    if ADDENDS > 2:
        total += tl.load(addend_2 + here, mask=valid, other=0).to(tl.int64)
    if REST:
        total += tl.load(rest + here, mask=valid, other=0)

    value = numerics.saturate(total, BITS)
    lost = tl.sum((valid & (value != total)).to(tl.int32))
    if DELTA:
        tl.store(dy + here, value.to(dy.dtype.element_ty), mask=valid)
        moved = value + tl.load(y_last + here, mask=valid, other=0).to(tl.int64)
        value = numerics.saturate(moved, BITS)
        lost += tl.sum((valid & (value != moved)).to(tl.int32))
    tl.store(y + here, value.to(y.dtype.element_ty), mask=valid)
    if lost > 0:
        tl.atomic_add(saturated, lost)
    if SUMS:
        shifted = tl.where(valid, value >> stat_shift, 0)
        place = sums + (image * channels + tl.program_id(1) * COLUMNS) * 2
        place += tl.arange(0, COLUMNS) * 2
        within = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS) < channels
        tl.atomic_add(place, tl.sum(shifted, 0), mask=within)
        tl.atomic_add(place + 1, tl.sum(shifted * shifted, 0), mask=within)


@dataclass(frozen=True)
class Product:
    """int32 (positions, channels) of a linear operator; multiplier int64 (channels,)."""

    value: Tensor
    multiplier: Tensor
    shift: int


def update_stream(
    products: Sequence[Product], addends: Sequence[Tensor], table: Tensor, bits: int, images: int,
    saturated: Tensor, *, stat_shift: int | None = None, offset: Tensor | None = None,
    table_last: Tensor | None = None, y_last: Tensor | None = None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """(y, dy or None, sums or None) of a stream.

    products and addends: (positions, channels), raw values, or changes where `y_last` is given.
    table, table_last: int32 (images or 1, channels). offset: int32 (rows, positions of an image,
    channels).
    y and dy: int16 or int32 as `bits` says. sums: int64 (images, channels, 2), of y >> stat_shift
    and of its square. saturated: int32 (1,), added to.
    """
    first = products[0].value if products else addends[0]
    positions, channels = first.shape
    delta = y_last is not None
    kind = torch.int16 if bits == 16 else torch.int32
    y = torch.empty((positions, channels), dtype=kind, device=first.device)
    dy = torch.empty_like(y) if delta else None
    sums = None
    if stat_shift is not None:
        sums = torch.zeros((images, channels, 2), dtype=torch.int64, device=first.device)
    rest = _rest(products[MOST:], addends[MOST:])
    made = [*products[:MOST], *[None] * (MOST - len(products))]
    added = [*addends[:MOST], *[None] * (MOST - len(addends))]
    size = positions // images
    stream_kernel[(images * triton.cdiv(size, ROWS), triton.cdiv(channels, COLUMNS))](
        *[p and p.value for p in made], *[p and p.multiplier for p in made],
        *[p.shift if p else 0 for p in made], *added, rest, table, table_last, offset,
        y_last, y, dy, sums, saturated,
        size, channels, len(table), 1 if offset is None else len(offset), stat_shift or 0,
        PRODUCTS=min(len(products), MOST), ADDENDS=min(len(addends), MOST),
        REST=rest is not None, OFFSET=offset is not None, DELTA=delta, SUMS=sums is not None,
        BITS=bits, ROWS=ROWS, COLUMNS=COLUMNS,
    )  # fmt: skip
    return y, dy, sums


def _rest(products: Sequence[Product], addends: Sequence[Tensor]) -> Tensor | None:
    """int64 sum of what one launch does not take."""
    terms = [arithmetic.requantise(p.value.long(), p.multiplier, p.shift) for p in products]
    terms += [addend.long() for addend in addends]
    return torch.stack(terms).sum(0) if terms else None
