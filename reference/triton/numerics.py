"""Triton ports of `signmask.hw.spec.numerics`: the same functions on blocks of integers.

Arguments called a block hold int64 unless stated; shifts and multipliers may be scalars. Widths are
written out, because Triton's interpreter does not take compile-time constants of a module; the
vectors of the specification hold them to it.
"""

import triton
import triton.language as tl


@triton.jit
def saturate(value, BITS: tl.constexpr):
    """Clamp to the signed range of BITS."""
    return tl.minimum(tl.maximum(value, -(1 << (BITS - 1))), (1 << (BITS - 1)) - 1)


@triton.jit
def shift_round(value, shift):
    """value * 2**-shift rounded half up; a negative shift multiplies. The value and its multiple
    have at most 63 bits."""
    half = (value << tl.maximum(1 - shift, 0)) >> tl.maximum(shift - 1, 0)
    return (half + 1) >> 1


@triton.jit
def requantise(accumulator, multiplier, shift):
    """Accumulators on a grid: accumulator * multiplier * 2**-shift."""
    return shift_round(accumulator.to(tl.int64) * multiplier, shift)


@triton.jit
def pre_activation(y, a, b, z_shift):
    """Normalised pre-activation z of raw values (b = 0 and y = dy: its change)."""
    return saturate(shift_round(a * y + b, z_shift), 24)  # Z_BITS


@triton.jit
def segment_of(z, breaks, slopes, intercepts, SEGMENTS: tl.constexpr):
    """(segment int32, slope, intercept) of every z; the tables are pointers to integers."""
    segment = tl.zeros(z.shape, tl.int32)
    for index in tl.static_range(1, SEGMENTS):
        segment += (z >= tl.load(breaks + index - 1)).to(tl.int32)
    if SEGMENTS > 1:
        slope = tl.load(slopes + segment).to(tl.int64)
        intercept = tl.load(intercepts + segment)
    else:
        slope = tl.load(slopes).to(tl.int64)
        intercept = tl.load(intercepts)
    return segment, slope, intercept


@triton.jit
def activation_code(z, slope, intercept, code_shift, low, high):
    """Code of the piecewise-linear activation at every z, in its segment."""
    return tl.minimum(tl.maximum(shift_round(slope * z + intercept, code_shift), low), high)


@triton.jit
def masked_delta(dz, slope, code_shift, residue, CARRY_BITS: tl.constexpr):
    """Change of the activation with CARRY_BITS fraction bits, residue of the last step added."""
    return shift_round(slope * dz, code_shift - CARRY_BITS) + residue


@triton.jit
def softmax_entry(top, scores, multiplier, shift):
    """Entry of the exponential table of scores, relative to the largest of their row (int32)."""
    below = top.to(tl.int64) - scores.to(tl.int64)
    return tl.minimum(requantise(below, multiplier, shift), 255).to(tl.int32)


@triton.jit
def attention_code(product, total, multiplier, shift, zero):
    """int8 codes (as int64) of softmax codes times V, from the sums of the codes."""
    reciprocal = ((1 << 30) // total).to(tl.int64)
    mean = shift_round(product.to(tl.int64) * reciprocal, 15)
    return saturate(requantise(mean, multiplier, shift) + zero, 8)


@triton.jit
def encode_groups(
    deltas, INLIER_BITS: tl.constexpr, FULL_LANES: tl.constexpr, SPILL: tl.constexpr,
    GROUP: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """What groups of GROUP consecutive columns of a (ROWS, COLUMNS) int32 block send, and which of
    their elements were clipped (int32 0 or 1)."""
    low: tl.constexpr = -(1 << (INLIER_BITS - 1))
    high: tl.constexpr = (1 << (INLIER_BITS - 1)) - 1
    deltas = saturate(deltas, 9)  # DELTA_BITS
    clipped = tl.zeros((ROWS, COLUMNS), tl.int32)
    if not SPILL:
        outlier = ((deltas < low) | (deltas > high)).to(tl.int32)
        grouped = tl.reshape(outlier, (ROWS, COLUMNS // GROUP, GROUP))
        late = grouped * (tl.cumsum(grouped, 2) > FULL_LANES).to(tl.int32)
        clipped = tl.reshape(late, (ROWS, COLUMNS))
        narrow = tl.minimum(tl.maximum(deltas, low), high)
        deltas = tl.where(clipped == 1, narrow, deltas)
    return deltas, clipped


@triton.jit
def split_delta(delta):
    """(narrow, rest) with delta = narrow + 2 * rest, both within int8, of 9-bit deltas (int32);
    rest is 0 where the delta itself is an int8."""
    over = tl.maximum(delta - 127, 0) + 1 >> 1
    under = tl.maximum(-128 - delta, 0) + 1 >> 1
    rest = over - under
    return delta - 2 * rest, rest
