"""The Triton ports reproduce the scalar definitions, bit for bit."""

from collections import defaultdict

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from signmask.hw.spec import numerics as scalar
from signmask.hw.spec import vectors
from signmask.reference.triton import numerics


@triton.jit
def saturate_kernel(value, out, SIZE: tl.constexpr, BITS: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(out + at, numerics.saturate(tl.load(value + at), BITS))


@triton.jit
def shift_round_kernel(value, shift, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(out + at, numerics.shift_round(tl.load(value + at), tl.load(shift + at)))


@triton.jit(do_not_specialize=["shift"])
def scalar_shift_kernel(value, out, shift, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    tl.store(out + at, numerics.shift_round(tl.load(value + at), shift))


@triton.jit
def requantise_kernel(value, multiplier, shift, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    accumulator = tl.load(value + at).to(tl.int32)  # as a product leaves it
    made = numerics.requantise(accumulator, tl.load(multiplier + at), tl.load(shift + at))
    tl.store(out + at, made)


@triton.jit
def pre_activation_kernel(y, a, b, shift, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    y, a = tl.load(y + at), tl.load(a + at)
    tl.store(out + at, numerics.pre_activation(y, a, tl.load(b + at), tl.load(shift + at)))


@triton.jit
def activation_kernel(z, slope, intercept, shift, low, high, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    z, slope, intercept = tl.load(z + at), tl.load(slope + at), tl.load(intercept + at)
    shift, low, high = tl.load(shift + at), tl.load(low + at), tl.load(high + at)
    tl.store(out + at, numerics.activation_code(z, slope, intercept, shift, low, high))


@triton.jit
def masked_delta_kernel(
    dz, slope, shift, residue, out, SIZE: tl.constexpr, CARRY: tl.constexpr
):  # fmt: skip
    at = tl.arange(0, SIZE)
    dz, slope, shift = tl.load(dz + at), tl.load(slope + at), tl.load(shift + at)
    made = numerics.masked_delta(dz, slope, shift, tl.load(residue + at), CARRY)
    tl.store(out + at, made)


@triton.jit
def softmax_kernel(top, score, multiplier, shift, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    top, score = tl.load(top + at).to(tl.int32), tl.load(score + at).to(tl.int32)
    made = numerics.softmax_entry(top, score, tl.load(multiplier + at), tl.load(shift + at))
    tl.store(out + at, made.to(tl.int64))


@triton.jit
def attention_kernel(product, total, multiplier, shift, zero, out, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    product, total = tl.load(product + at).to(tl.int32), tl.load(total + at).to(tl.int32)
    multiplier, shift, zero = tl.load(multiplier + at), tl.load(shift + at), tl.load(zero + at)
    tl.store(out + at, numerics.attention_code(product, total, multiplier, shift, zero))


@triton.jit
def segment_kernel(
    z, breaks, slopes, intercepts, out, SIZE: tl.constexpr, SEGMENTS: tl.constexpr
):  # fmt: skip
    at = tl.arange(0, SIZE)
    found = numerics.segment_of(tl.load(z + at), breaks, slopes, intercepts, SEGMENTS)
    tl.store(out + at, found[0].to(tl.int64))
    tl.store(out + SIZE + at, found[1])
    tl.store(out + 2 * SIZE + at, found[2])


@triton.jit
def groups_kernel(
    deltas, sent, clipped, BITS: tl.constexpr, LANES: tl.constexpr, SPILL: tl.constexpr,
    GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    at = tl.arange(0, ROWS)[:, None] * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    made, cut = numerics.encode_groups(
        tl.load(deltas + at).to(tl.int32), BITS, LANES, SPILL, GROUP, ROWS, COLUMNS
    )
    tl.store(sent + at, made.to(tl.int64))
    tl.store(clipped + at, cut.to(tl.int64))


@triton.jit
def split_kernel(delta, narrow, rest, SIZE: tl.constexpr):
    at = tl.arange(0, SIZE)
    part, more = numerics.split_delta(tl.load(delta + at).to(tl.int32))
    tl.store(narrow + at, part.to(tl.int64))
    tl.store(rest + at, more.to(tl.int64))


def padded(values, device):
    """int64 values on the device, filled up with zeros to a power of two."""
    made = torch.zeros(triton.next_power_of_2(max(16, len(values))), dtype=torch.int64)
    made[: len(values)] = torch.tensor(values, dtype=torch.int64)
    return made.to(device)


def batches(function, static):
    """Vectors of a function grouped by the arguments that a kernel takes at compile time."""
    groups = defaultdict(list)
    for arguments, expected in vectors.vectors(function):
        groups[tuple(arguments[i] for i in static)].append((arguments, expected))
    for key, members in groups.items():
        columns = list(zip(*(a for a, _ in members), strict=True))
        yield key, columns, [e for _, e in members]


# The kernel of each function and the positions of arguments that it takes at compile time.
KERNELS = {
    "saturate": (saturate_kernel, {1: "BITS"}),
    "shift_round": (shift_round_kernel, {}),
    "requantise": (requantise_kernel, {}),
    "pre_activation": (pre_activation_kernel, {}),
    "activation_code": (activation_kernel, {}),
    "masked_delta": (masked_delta_kernel, {4: "CARRY"}),
}


@pytest.mark.parametrize("function", KERNELS)
def test_port_reproduces_vectors(function, device):
    kernel, static = KERNELS[function]
    for key, columns, expected in batches(function, static):
        given = [padded(c, device) for i, c in enumerate(columns) if i not in static]
        out = torch.empty_like(given[0])
        kernel[(1,)](*given, out, SIZE=len(out), **dict(zip(static.values(), key, strict=True)))
        assert out[: len(expected)].tolist() == expected


def test_shifts_given_as_scalars(device):
    for (shift,), columns, expected in batches("shift_round", (1,)):
        value = padded(columns[0], device)
        out = torch.empty_like(value)
        scalar_shift_kernel[(1,)](value, out, shift, SIZE=len(out))
        assert out[: len(expected)].tolist() == expected


def test_segments_with_their_slopes_and_intercepts(device):
    groups = list(batches("segment_index", (1,)))
    for (breaks,), columns, expected in groups[:5] + groups[5::8]:
        rng = np.random.default_rng(len(breaks))
        slopes, intercepts = rng.integers(-(1 << 40), 1 << 40, (2, len(breaks) + 1)).tolist()
        z = padded(columns[0], device)
        out = torch.empty((3, len(z)), dtype=torch.int64, device=device)
        tables = [torch.tensor(t, device=device) for t in (breaks or (0,), slopes, intercepts)]
        segment_kernel[(1,)](z, *tables, out, SIZE=len(z), SEGMENTS=len(slopes))
        wanted = [expected, [slopes[i] for i in expected], [intercepts[i] for i in expected]]
        assert out[:, : len(expected)].tolist() == wanted


def test_softmax_entries_look_up_the_codes_of_the_vectors(device):
    rows = vectors.vectors("softmax_row")
    flat = [(max(a[0]), score, a[1], a[2]) for a, _ in rows for score in a[0]]
    given = [padded(values, device) for values in zip(*flat, strict=True)]
    out = torch.empty_like(given[0])
    softmax_kernel[(1,)](*given, out, SIZE=len(out))
    table = scalar.exponential_table()
    expected = [code for _, (codes, _) in rows for code in codes]
    assert [table[entry] for entry in out[: len(expected)].tolist()] == expected


def test_attention_codes_from_sums_with_the_reciprocals_of_the_vectors(device):
    one = 1 << scalar.RECIPROCAL_FRACTION
    ((_, columns, expected),) = batches("attention_code", ())
    columns[1] = [one // reciprocal for reciprocal in columns[1]]
    given = [padded(values, device) for values in columns]
    given[1][len(expected) :] = 127  # a sum is at least the code of the largest score
    out = torch.empty_like(given[0])
    attention_kernel[(1,)](*given, out, SIZE=len(out))
    assert out[: len(expected)].tolist() == expected


def test_groups_encode_as_the_vectors_say(device):
    # Zeros behind a group change nothing, so all of them may be of one size.
    size, rows = 64, 16
    for (bits, lanes, spill), columns, expected in batches("encode_group", (1, 2, 3)):
        for start in range(0, len(expected), 2 * rows):
            chosen = slice(start, start + 2 * rows)
            deltas = torch.zeros((2 * rows, size), dtype=torch.int64)
            want, cut = torch.zeros_like(deltas), torch.zeros_like(deltas)
            pairs = zip(columns[0][chosen], expected[chosen], strict=True)
            for row, (given, result) in enumerate(pairs):
                deltas[row, : len(given)] = torch.tensor(given)
                want[row, : len(given)] = torch.tensor(result)
                saturated = [scalar.saturate(d, scalar.DELTA_BITS) for d in given]
                cut[row, : len(given)] = torch.tensor(result) != torch.tensor(saturated)
            sent = torch.empty((2 * rows, size), dtype=torch.int64, device=device)
            clipped = torch.empty_like(sent)
            # Two groups side by side in each row.
            groups_kernel[(1,)](
                deltas.to(device), sent, clipped, BITS=bits, LANES=lanes, SPILL=spill,
                GROUP=size, ROWS=rows, COLUMNS=2 * size,
            )  # fmt: skip
            assert torch.equal(sent.cpu(), want)
            assert torch.equal(clipped.cpu(), cut)


def test_every_delta_splits_into_two_int8(device):
    delta = torch.arange(-256, 256, device=device)
    narrow, rest = torch.empty_like(delta), torch.empty_like(delta)
    split_kernel[(1,)](delta, narrow, rest, SIZE=512)
    assert torch.equal(narrow + 2 * rest, delta)
    for part in (narrow, rest):
        assert int(part.min()) >= -128 and int(part.max()) <= 127
    assert torch.equal(rest == 0, (delta >= -128) & (delta <= 127))
