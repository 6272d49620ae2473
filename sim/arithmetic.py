"""Vectorised port of `hw/spec/numerics.py` to numpy, int64 in and out unless stated.

Every function reproduces the scalar definition of the same name bit for bit as long as its
intermediate products fit int64, which the compiler guarantees.
"""

from __future__ import annotations

import numpy as np

from signmask.hw.spec import numerics

Array = np.ndarray
_Z_HIGH = (1 << (numerics.Z_BITS - 1)) - 1
_LEFT_LIMIT = 1 << 30  # magnitudes beyond it stay beyond GAIN_BITS after any left shift
_LEFT_SHIFT = 32  # brings 1 beyond GAIN_BITS, and _LEFT_LIMIT not beyond int64


def saturate(value: Array, bits: int) -> Array:
    """Clamp to the signed range of `bits`."""
    high = (1 << (bits - 1)) - 1
    return np.minimum(np.maximum(value, -high - 1), high)


def shift_round(value: Array, shift: int) -> Array:
    """value * 2**-shift rounded half up; a negative shift multiplies."""
    value = value.astype(np.int64, copy=False)
    if shift == 0:
        return value
    if shift < 0:
        return value << -shift
    rounded = value + (1 << (shift - 1))
    rounded >>= shift
    return rounded


def requantise(accumulator: Array, multiplier: Array | int, shift: int) -> Array:
    """accumulator * multiplier * 2**-shift, rounded half up."""
    return shift_round(np.multiply(accumulator, multiplier, dtype=np.int64), shift)


def divide_round(numerator: Array, denominator: int) -> Array:
    """numerator / denominator rounded half up; denominator > 0."""
    return (2 * numerator + denominator) // (2 * denominator)


def bit_length(value: Array) -> Array:
    """Position of the highest set bit plus one, of non-negative values."""
    rest, length = value.astype(np.int64), np.zeros(value.shape, np.int64)
    for step in (32, 16, 8, 4, 2, 1):
        high = (rest >> step) > 0
        rest = np.where(high, rest >> step, rest)
        length += high * step
    return length + (rest > 0)


def integer_root(value: Array) -> Array:
    """floor(sqrt(value)) of values below 2**52."""
    root = np.sqrt(value.astype(np.float64)).astype(np.int64)
    root -= root * root > value
    root += (root + 1) * (root + 1) <= value
    return root


def reciprocal_sqrt(value: Array) -> tuple[Array, Array]:
    """(r, h) with 1/sqrt(value) ~ r * 2**-(46 + h); every value >= 1."""
    h = (bit_length(value) - 47) >> 1
    mantissa = np.where(h >= 0, value >> np.maximum(2 * h, 0), value << np.maximum(-2 * h, 0))
    return (1 << numerics.RSQRT_FRACTION) // integer_root(mantissa), h


def group_moments(
    total: Array, squares: Array, count: int, epsilon: int
) -> tuple[Array, Array, Array]:
    """(mean, r, h) of normalisation groups from their sums of y and of y squared."""
    mean = divide_round(total << numerics.MEAN_FRACTION, count)
    r, h = reciprocal_sqrt(count * squares - total * total + epsilon)
    return mean, r, h


def move_by_trend(
    mean: Array, r: Array, mean_last: Array, mean_now: Array, inverse_now: Array, sigma_last: Array
) -> tuple[Array, Array]:
    """Statistics (mean, r) of the last step moved by the calibrated change."""
    ratio = shift_round(inverse_now * sigma_last, numerics.TREND_FRACTION)
    return mean + mean_now - mean_last, shift_round(r * ratio, numerics.TREND_FRACTION)


def channel_constants(
    mean: Array, r: Array, h: Array, gain: Array, offset: Array, gain_shift: int, mean_shift: int
) -> tuple[Array, Array]:
    """(A, B) of channels whose group statistics are mean, r, h (broadcast together)."""
    value, shift = np.broadcast_arrays(gain * r, gain_shift + h)
    right = np.maximum(shift, 1)
    # Clamping first keeps left shifts within int64; the result saturates all the same.
    left = np.clip(value, -_LEFT_LIMIT, _LEFT_LIMIT) << np.clip(-shift, 0, _LEFT_SHIFT)
    rounded = (value + (np.int64(1) << (right - 1))) >> right
    # A shift of nothing must not clamp either.
    scaled = np.where(shift > 0, rounded, np.where(shift == 0, value, left))
    a = saturate(scaled, numerics.GAIN_BITS)
    return a, offset - shift_round(a * mean, mean_shift)


def normalise_token(
    values: Array, count: int, epsilon: int, stat_shift: int, shift: int, centred: bool
) -> Array:
    """Values (tokens, channels) of each token less their mean, over their deviation."""
    values = values.astype(np.int64, copy=False)
    shifted = values >> stat_shift
    squares = np.einsum("tc,tc->t", shifted, shifted)
    total = shifted.sum(axis=1) if centred else np.zeros_like(squares)
    mean, r, h = (each[:, None] for each in group_moments(total, squares, count, epsilon))
    centre = (values << numerics.MEAN_FRACTION) - (mean << stat_shift)
    scaled = saturate(centre, numerics.CENTRED_BITS) * r
    right = shift + h  # at least 1
    scaled += np.int64(1) << (right - 1)
    scaled >>= right
    return saturate(scaled, 32)


def pre_activation(y: Array, a: Array, b: Array | int, z_shift: int) -> Array:
    """Normalised pre-activation, int32 (it has 24 bits)."""
    z = np.multiply(y, a, dtype=np.int64)
    if not (isinstance(b, int) and b == 0):
        z += b
    z = shift_round(z, z_shift)
    np.maximum(z, -_Z_HIGH - 1, out=z)
    np.minimum(z, _Z_HIGH, out=z)
    return z.astype(np.int32)


def segment_index(z: Array, breaks: Array) -> Array:
    """Number of breaks <= z, uint8; z is int32, breaks beyond its 24 bits are never reached."""
    index = np.zeros(z.shape, np.uint8)
    for edge in breaks.tolist():
        if edge <= _Z_HIGH:
            index += z >= np.int32(max(edge, -_Z_HIGH - 1))
    return index


def activation_code(
    z: Array, slope: Array, intercept: Array, code_shift: int, low: int, high: int
) -> Array:
    """Code of the piecewise-linear activation at z."""
    exact = np.multiply(slope, z, dtype=np.int64)
    exact += intercept
    code = shift_round(exact, code_shift)
    return np.minimum(np.maximum(code, low), high)


def masked_delta(
    dz: Array, slope: Array, code_shift: int, residue: Array | int, carry_bits: int
) -> Array:
    """Change of the activation with `carry_bits` fraction bits, the residue added."""
    product = np.multiply(slope, dz, dtype=np.int64)
    change = shift_round(product, code_shift - carry_bits)
    return change if isinstance(residue, int) and residue == 0 else change + residue


def product_code(a: Array, b: Array, multiplier: int, shift: int, zero: int) -> Array:
    """int8 codes of products of codes less their zeros."""
    return saturate(requantise(a * b, multiplier, shift) + zero, 8)


_EXPONENTIAL = np.array(numerics.exponential_table(), np.int64)


def softmax_rows(scores: Array, multiplier: int, shift: int) -> tuple[Array, Array]:
    """Codes (rows, keys) and reciprocals (rows,) of score rows (rows, keys)."""
    below = scores.max(axis=1, keepdims=True).astype(np.int64) - scores
    index = np.minimum(requantise(below, multiplier, shift), numerics.SOFTMAX_ENTRIES - 1)
    codes = _EXPONENTIAL[index]
    return codes, (1 << numerics.RECIPROCAL_FRACTION) // codes.sum(axis=1)


def attention_code(
    product: Array, reciprocal: Array, multiplier: int, shift: int, zero: int
) -> Array:
    """int8 codes of attention outputs."""
    mean = requantise(product, reciprocal, numerics.RECIPROCAL_FRACTION - numerics.SOFTMAX_FRACTION)
    return saturate(requantise(mean, multiplier, shift) + zero, 8)
