"""Integer arithmetic of every backend, one scalar definition each (`docs/numerics.md`).

All values are Python integers. Ports (numpy in `sim/`, torch in `reference/`) must reproduce the
vectors that `vectors.py` generates from these functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

Z_BITS = 24  # width of the normalised pre-activation z
GAIN_BITS = 24  # width of the per-channel gain A
DELTA_BITS = 9  # width of a code delta on the full lanes
MEAN_FRACTION = 8  # fraction bits of a group mean, in grid steps
CENTRED_BITS = 39  # of a value less its token's mean: times r it stays within 63 bits
TREND_FRACTION = 14  # fraction bits of calibrated standard deviations and of their ratio
RSQRT_FRACTION = 46  # reciprocal_sqrt returns r * 2**-(46 + h)
RECIPROCAL_FRACTION = 30  # softmax row reciprocal
SOFTMAX_FRACTION = 15  # fraction bits of a normalised attention product
SOFTMAX_ENTRIES = 256
SOFTMAX_STEPS_PER_E = 46  # table entries for a factor of e; entry 255 is below half a code


def saturate(value: int, bits: int) -> int:
    """Clamp to the signed range of `bits`."""
    return max(-(1 << (bits - 1)), min((1 << (bits - 1)) - 1, value))


def shift_round(value: int, shift: int) -> int:
    """value * 2**-shift rounded half up; a negative shift multiplies."""
    if shift <= 0:
        return value << -shift
    return (value + (1 << (shift - 1))) >> shift


def requantise(accumulator: int, multiplier: int, shift: int) -> int:
    """Scale an int32 accumulator onto a grid: accumulator * multiplier * 2**-shift."""
    return shift_round(accumulator * multiplier, shift)


def divide_round(numerator: int, denominator: int) -> int:
    """numerator / denominator rounded half up; denominator > 0."""
    return (2 * numerator + denominator) // (2 * denominator)


def reciprocal_sqrt(value: int) -> tuple[int, int]:
    """(r, h) with 1/sqrt(value) ~ r * 2**-(46 + h), r in [2**22, 2**23]; value >= 1.

    The value is brought into [2**46, 2**48) by an even shift 2h, its integer square root s divides
    2**46: a digit-by-digit root and a serial divider in hardware.
    """
    h = (value.bit_length() - 47) >> 1
    mantissa = value >> (2 * h) if h >= 0 else value << (-2 * h)
    return (1 << RSQRT_FRACTION) // isqrt(mantissa), h


def group_moments(total: int, squares: int, count: int, epsilon: int) -> tuple[int, int, int]:
    """(mean, r, h) of one normalisation group from its sums of y and of y squared.

    mean has MEAN_FRACTION bits; 1/(count * sigma) ~ r * 2**-(46 + h); epsilon is the layer's
    variance floor times count**2 in squared grid steps, at least 1.
    """
    mean = divide_round(total << MEAN_FRACTION, count)
    r, h = reciprocal_sqrt(count * squares - total * total + epsilon)
    return mean, r, h


def move_by_trend(
    mean: int, r: int, mean_last: int, mean_now: int, inverse_now: int, sigma_last: int
) -> tuple[int, int]:
    """Trend GroupNorm: statistics of the last executed step moved by the calibrated change.

    The mean moves by the difference of the calibrated means, 1/sigma by the ratio of calibrated
    deviations (inverse_now * sigma_last, both with TREND_FRACTION bits).
    """
    ratio = shift_round(inverse_now * sigma_last, TREND_FRACTION)
    return mean + mean_now - mean_last, shift_round(r * ratio, TREND_FRACTION)


def channel_constants(
    mean: int, r: int, h: int, gain: int, offset: int, gain_shift: int, mean_shift: int
) -> tuple[int, int]:
    """(A, B) of one channel: z = shift_round(A*y + B, z_shift).

    gain is the layer's scale times count, offset its bias, both in the encoding's fixed point;
    gain_shift + h and mean_shift are the right shifts that bring A and A*mean to the unit of B.
    """
    a = saturate(shift_round(gain * r, gain_shift + h), GAIN_BITS)
    return a, offset - shift_round(a * mean, mean_shift)


def normalise_token(
    values: Sequence[int], count: int, epsilon: int, stat_shift: int, shift: int, centred: bool
) -> list[int]:
    """Values of one position less their mean, over their deviation: fixed point of a scale that
    `shift` (24..54) chooses. `count` values count; further ones are 0 and fill a group up."""
    shifted = [v >> stat_shift for v in values]
    total = sum(shifted) if centred else 0
    mean, r, h = group_moments(total, sum(v * v for v in shifted), count, epsilon)
    centres = [saturate((v << MEAN_FRACTION) - (mean << stat_shift), CENTRED_BITS) for v in values]
    return [saturate(shift_round(v * r, shift + h), 32) for v in centres]


def pre_activation(y: int, a: int, b: int, z_shift: int) -> int:
    """Normalised pre-activation z of a raw value y (b = 0 and y = dy: its change)."""
    return saturate(shift_round(a * y + b, z_shift), Z_BITS)


def segment_index(z: int, breaks: Sequence[int]) -> int:
    """Which linear segment of the activation z lies in: the number of breaks <= z (the mask)."""
    return sum(z >= edge for edge in breaks)


def activation_code(
    z: int, slope: int, intercept: int, code_shift: int, low: int, high: int
) -> int:
    """int8 code of the piecewise-linear activation at z, in its segment."""
    return max(low, min(high, shift_round(slope * z + intercept, code_shift)))


def masked_delta(dz: int, slope: int, code_shift: int, residue: int, carry_bits: int) -> int:
    """Change of the activation with `carry_bits` fraction bits, residue of the last step added."""
    return shift_round(slope * dz, code_shift - carry_bits) + residue


def product_code(a: int, b: int, multiplier: int, shift: int, zero: int) -> int:
    """int8 code of a product of two codes less their zeros (9 bits each)."""
    return saturate(requantise(a * b, multiplier, shift) + zero, 8)


def encode_group(
    deltas: Sequence[int], inlier_bits: int, full_lanes: int, spill: bool
) -> list[int]:
    """What a group of consecutive channels really sends: the leftmost `full_lanes` outliers stay
    wide, later ones are clipped to the inlier range, or kept at the price of cycles (`spill`)."""
    low, high = -(1 << (inlier_bits - 1)), (1 << (inlier_bits - 1)) - 1
    sent, outliers = [], 0
    for delta in deltas:
        delta = saturate(delta, DELTA_BITS)
        if not low <= delta <= high:
            outliers += 1
            if outliers > full_lanes and not spill:
                delta = max(low, min(high, delta))
        sent.append(delta)
    return sent


def digit_passes(bits: int, inlier_bits: int) -> int:
    """Cycles that a raw operand of `bits` signed bits takes on narrow lanes of inlier_bits + 1
    signed bits: digits of inlier_bits each, the top digit signed."""
    return max(1, -(-(bits - 1) // inlier_bits))


def spread_code(value: int, spread: int) -> list[int]:
    """`spread` int8 codes that sum to `value`, as equal as can be; value in steps of the source,
    within -128*spread .. 127*spread."""
    return [(value + copy) // spread for copy in range(spread)]


def delta_passes(outliers: int, full_lanes: int, inlier_bits: int) -> int:
    """Cycles that a group of deltas takes: the full lanes work off the outliers, `full_lanes` per
    cycle, unless the narrow lanes are quicker digit by digit."""
    return min(max(1, -(-outliers // full_lanes)), digit_passes(DELTA_BITS, inlier_bits))


def exponential_table() -> list[int]:
    """round(127 * exp(-i / 46)), i = 0..255, as fixed integers of the specification."""
    from math import exp

    return [int(127 * exp(-i / SOFTMAX_STEPS_PER_E) + 0.5) for i in range(SOFTMAX_ENTRIES)]


def softmax_row(
    scores: Sequence[int], multiplier: int, shift: int, table: Sequence[int]
) -> tuple[list[int], int]:
    """Unnormalised softmax codes (0..127, the maximum is 127) and 2**30 over their sum."""
    top = max(scores)
    codes = [
        table[min(requantise(top - s, multiplier, shift), SOFTMAX_ENTRIES - 1)] for s in scores
    ]
    return codes, (1 << RECIPROCAL_FRACTION) // sum(codes)


def attention_code(product: int, reciprocal: int, multiplier: int, shift: int, zero: int) -> int:
    """int8 code of one attention output: softmax codes times V, normalised, requantised."""
    mean = shift_round(product * reciprocal, RECIPROCAL_FRACTION - SOFTMAX_FRACTION)
    return saturate(requantise(mean, multiplier, shift) + zero, 8)
