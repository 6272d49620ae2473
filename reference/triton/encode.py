"""Delta encode: codes or activations minus x^, classified, grouped and packed in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from signmask.reference.triton import numerics
from signmask.reference.triton.errors import GpuError
from signmask.reference.triton.layout import RUN, TILE, Columns, Operand

SOURCE, RAW, MASK = 0, 1, 2  # where the new code comes from
CODES, RESTORED, UNENCODED = 0, 1, 2  # what is sent: raw codes, encoded or plain differences
COUNTERS = ("zero", "outlier", "clipped", "segment_changes")


@triton.jit(do_not_specialize=["z_shift", "code_shift", "low", "high"])
def encode_kernel(
    codes, y, dy, a, b, gain, breaks, slopes, intercepts, base, sent, residue, segments_last,
    segments, narrow, rest, levels, counts, area, wide_counts,
    positions, image_positions, channels, width, columns, constants_stride,
    z_shift, code_shift, low, high, first,
    KIND: tl.constexpr, SEND: tl.constexpr, CLOSED: tl.constexpr, CARRY: tl.constexpr,
    CARRY_BITS: tl.constexpr, SEGMENTS: tl.constexpr, COMPARE: tl.constexpr, PACK: tl.constexpr,
    INLIER_BITS: tl.constexpr, FULL_LANES: tl.constexpr, SPILL: tl.constexpr,
    GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    RUN: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """Encode one part of an operand: ROWS positions and COLUMNS channels per program."""
    position = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    channel = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    valid = (position < positions) & (channel < channels)
    here = position.to(tl.int64) * channels + channel  # in tensors of the stream
    there = position.to(tl.int64) * columns + first + channel  # in those of the operand
    inside = (position < positions) & (channel < width)
    code = tl.zeros((ROWS, COLUMNS), tl.int32)
    change = tl.zeros((ROWS, COLUMNS), tl.int32)
    changes = tl.zeros((ROWS, COLUMNS), tl.int32)

    if KIND == 0:
        code = tl.load(codes + here, mask=valid, other=0).to(tl.int32)
    else:
        constant = (position // image_positions) * constants_stride + channel
        gains = tl.load(a + constant, mask=valid, other=0).to(tl.int64)
        offsets = tl.load(b + constant, mask=valid, other=0)
        value = tl.load(y + here, mask=valid, other=0).to(tl.int64)
        z = numerics.pre_activation(value, gains, offsets, z_shift).to(tl.int32)
        segment, slope, intercept = numerics.segment_of(z, breaks, slopes, intercepts, SEGMENTS)
        code = numerics.activation_code(z.to(tl.int64), slope, intercept, code_shift, low, high).to(
            tl.int32
        )
        if KIND == 2:
            if not CLOSED:
                gains = tl.load(gain + constant, mask=valid, other=0).to(tl.int64)
            moved = tl.load(dy + here, mask=valid, other=0).to(tl.int64)
            dz = numerics.pre_activation(moved, gains, 0, z_shift)
            if CARRY:
                kept = tl.load(residue + there, mask=valid, other=0).to(tl.int64)
                exact = numerics.masked_delta(dz, slope, code_shift, kept, CARRY_BITS)
                whole = numerics.shift_round(exact, CARRY_BITS)
                tl.store(residue + there, (exact - (whole << CARRY_BITS)).to(tl.int16), mask=valid)
                change = numerics.saturate(whole, 9).to(tl.int32)
            else:
                exact = numerics.masked_delta(dz, slope, code_shift, 0, 0)
                # Wider than a delta and a correction together: the encoder saturates it.
                change = numerics.saturate(exact, 12).to(tl.int32)
            if COMPARE:
                before = tl.load(segments_last + there, mask=valid, other=0).to(tl.int32)
                changes = tl.where(valid & (before != segment), 1, 0)
            if SEGMENTS > 1:
                tl.store(segments + there, segment.to(tl.int8), mask=valid)

    if SEND == 0:
        code = tl.where(valid, code, 0)
        tl.store(narrow + there, code.to(tl.int8), mask=inside)
        tl.store(sent + there, code.to(tl.int16), mask=inside)
    else:
        held = tl.load(sent + there, mask=valid, other=0).to(tl.int32)
        delta = change
        if KIND != 2:
            if CLOSED:
                delta = code - held
            else:
                delta = code - tl.load(base + here, mask=valid, other=0).to(tl.int32)
        elif CLOSED:
            delta = change + numerics.saturate(code - held, 9)
        delta = tl.where(valid, delta, 0)
        clipped = tl.zeros((ROWS, COLUMNS), tl.int32)
        if SEND == 1:
            delta, clipped = numerics.encode_groups(
                delta, INLIER_BITS, FULL_LANES, SPILL, GROUP, ROWS, COLUMNS
            )
        tl.store(sent + there, (held + delta).to(tl.int16), mask=inside)
        part, more = numerics.split_delta(delta)
        tl.store(narrow + there, part.to(tl.int8), mask=inside)
        level = (delta != 0).to(tl.int32) + (more != 0).to(tl.int32)
        tiled = tl.reshape(level, (ROWS // RUN, RUN, COLUMNS // TILE, TILE))
        peak = tl.max(tl.max(tiled, 3), 1)
        run = tl.program_id(0) * (ROWS // RUN) + tl.arange(0, ROWS // RUN)[:, None]
        tile = tl.program_id(1) * (COLUMNS // TILE) + tl.arange(0, COLUMNS // TILE)[None, :]
        known = (run * RUN < positions) & (tile < width // TILE)
        place = run * (columns // TILE) + first // TILE + tile
        # A product reads the rest of larger blocks than these: what a step before left goes.
        stale = tl.load(levels + place, mask=known, other=0).to(tl.int32)
        if tl.max(tl.max(tl.maximum(peak, stale), 1), 0) > 1:
            tl.store(rest + there, more.to(tl.int8), mask=inside)
        tl.store(levels + place, peak.to(tl.int8), mask=known)
        if SEND == 1:
            smallest: tl.constexpr = -(1 << (INLIER_BITS - 1))
            largest: tl.constexpr = (1 << (INLIER_BITS - 1)) - 1
            outlier = ((delta < smallest) | (delta > largest)).to(tl.int32)
            zero = (valid & (delta == 0)).to(tl.int32)
            tl.atomic_add(counts, tl.sum(zero))
            tl.atomic_add(counts + 1, tl.sum(outlier))
            if not SPILL:
                tl.atomic_add(counts + 2, tl.sum(clipped))
            if COMPARE:
                tl.atomic_add(counts + 3, tl.sum(changes))
            if PACK:
                pack_block(
                    delta, outlier, area, wide_counts, positions, width, columns, first,
                    INLIER_BITS, GROUP, ROWS, COLUMNS,
                )  # fmt: skip


@triton.jit
def pack_block(
    delta, outlier, area, wide_counts, positions, width, columns, first,
    INLIER_BITS: tl.constexpr, GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write bitmaps and inliers of the groups of a block as the accelerator stores them
    (`docs/isa.md`), and how many outliers each group has."""
    octets: tl.constexpr = COLUMNS // 8
    each: tl.constexpr = GROUP // 8  # octets of a group
    size: tl.constexpr = each * (1 + INLIER_BITS)  # bytes of a group
    position = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    octet = tl.program_id(1) * octets + tl.arange(0, octets)[None, :]
    kept = (position < positions) & (octet < width // 8)
    octet += first // 8
    lane = tl.arange(0, 8)[None, None, :]
    word = position.to(tl.int64) * (columns // GROUP) + octet // each
    bits = tl.sum(tl.reshape(outlier, (ROWS, octets, 8)) << lane, 2)
    tl.store(area + word * size + octet % each, bits.to(tl.uint8), mask=kept)
    field = tl.where(outlier == 1, 0, delta) & ((1 << INLIER_BITS) - 1)
    wide = tl.reshape(field.to(tl.int64), (ROWS, octets, 8)) << (lane * INLIER_BITS).to(tl.int64)
    joined = tl.sum(wide, 2)
    place = area + word * size + each + (octet % each) * INLIER_BITS
    for byte in tl.static_range(INLIER_BITS):
        tl.store(place + byte, ((joined >> (8 * byte)) & 255).to(tl.uint8), mask=kept)
    groups: tl.constexpr = COLUMNS // GROUP
    group = tl.program_id(1) * groups + tl.arange(0, groups)[None, :]
    kept = (position < positions) & (group < width // GROUP)
    many = tl.sum(tl.reshape(outlier, (ROWS, groups, GROUP)), 2)
    place = wide_counts + position.to(tl.int64) * (columns // GROUP) + first // GROUP + group
    tl.store(place, many.to(tl.uint8), mask=kept)


@dataclass(frozen=True)
class Format:
    """How groups of an operand are encoded."""

    columns: Columns
    inlier_bits: int
    full_lanes: int
    spill: bool

    def __post_init__(self) -> None:
        group = self.columns.group
        if group < 8 or group & (group - 1):
            raise GpuError(
                f"the Triton kernels need groups of a power of two of at least 8 lanes, these have "
                f"{group}; compile for another config."
            )


@dataclass(frozen=True)
class Activation:
    """Tables of a piecewise-linear activation and the shifts around it (`network.Encoding`):
    integers, of 32 bits where that is enough."""

    breaks: Tensor
    slopes: Tensor
    intercepts: Tensor
    z_shift: int
    code_shift: int
    low: int
    high: int

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Arguments of the kernel."""
        return self.breaks, self.slopes, self.intercepts

    @property
    def scalars(self) -> tuple[int, int, int, int]:
        """Arguments of the kernel."""
        return self.z_shift, self.code_shift, self.low, self.high


@dataclass
class Values:
    """Where the new codes of a part come from.

    Codes alone: `codes`, int8 (positions, channels). From raw values: `y` (of this step, or with
    `dy` of the last one), both integers (positions, channels), and the constants `a`, `b` and, for
    dz of an open loop, `gain`: integers (images or 1, channels), of which `a` and `gain` have 24
    bits.
    """

    codes: Tensor | None = None
    y: Tensor | None = None
    dy: Tensor | None = None
    a: Tensor | None = None
    b: Tensor | None = None
    gain: Tensor | None = None
    activation: Activation | None = None


@dataclass
class Encoded:
    """State and result of the encoding of an operand, (positions, columns) unless stated.

    sent: int16 x^. residue: int16 or None. segments: int8 of this step; last: of the step before or
    None. counts: int32 (4,) in the order of COUNTERS. area, wide_counts: uint8, the packed form.
    """

    operand: Operand
    sent: Tensor
    counts: Tensor
    segments: Tensor | None = None
    last_segments: Tensor | None = None
    residue: Tensor | None = None
    area: Tensor | None = None
    wide_counts: Tensor | None = None


def encode(
    part: int, values: Values, encoded: Encoded, form: Format, send: int, images: int,
    closed: bool = True, carry_bits: int | None = None, base: Tensor | None = None,
) -> None:  # fmt: skip
    """Encode part `part` of an operand in place: codes or deltas into `encoded.operand`, x^ and
    segments updated, counters added to.

    send: CODES, RESTORED or UNENCODED. `base` are codes that the difference is taken to in an open
    loop in place of x^. `carry_bits` is given where residues are carried.
    """
    source = values.codes if values.codes is not None else values.y
    if source is None:
        raise ValueError("a part needs codes or raw values.")
    positions, channels = source.shape
    columns = form.columns
    width = -(-channels // columns.unit) * columns.unit
    kind = SOURCE if values.codes is not None else RAW if values.dy is None else MASK
    block = max(columns.unit, 64)
    rows = max(RUN, 2048 // block)
    tables = values.activation
    segments = 1 if tables is None else tables.slopes.numel()
    stride = 0 if values.a is None or len(values.a) == 1 else channels
    encode_kernel[(triton.cdiv(positions, rows), triton.cdiv(width, block))](
        values.codes, values.y, values.dy, values.a, values.b, values.gain,
        *(tables.tensors if tables else (None,) * 3), base, encoded.sent, encoded.residue,
        encoded.last_segments, encoded.segments, encoded.operand.narrow, encoded.operand.rest,
        encoded.operand.levels, encoded.counts, encoded.area, encoded.wide_counts,
        positions, positions // images, channels, width, columns.width, stride,
        *(tables.scalars if tables else (0,) * 4), columns.starts[part],
        KIND=kind, SEND=send, CLOSED=closed, CARRY=carry_bits is not None,
        CARRY_BITS=carry_bits or 0, SEGMENTS=segments,
        COMPARE=encoded.last_segments is not None and segments > 1,
        PACK=encoded.area is not None, INLIER_BITS=form.inlier_bits, FULL_LANES=form.full_lanes,
        SPILL=form.spill, GROUP=columns.group, ROWS=rows, COLUMNS=block, RUN=RUN, TILE=TILE,
    )  # fmt: skip
