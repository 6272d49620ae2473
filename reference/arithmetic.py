"""Torch ports of `signmask.hw.spec.numerics`: the same functions on int64 tensors, elementwise.

Every argument called a tensor is int64 and broadcasts; results are int64. The ports are exact as
long as the products named in the docstrings stay inside int64, which the compiler guarantees.
"""

from __future__ import annotations

import torch
from torch import Tensor

from signmask.hw.spec import numerics

_HIGHEST_SHIFT = 63  # the highest that int64 tensors define; compilers stay below it


def saturate(value: Tensor, bits: int) -> Tensor:
    """Clamp to the signed range of `bits`."""
    return value.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def shift_round(value: Tensor, shift: int | Tensor) -> Tensor:
    """value * 2**-shift rounded half up; a negative shift multiplies.

    Adds the last bit shifted out instead of one half, so that nothing can overflow.
    """
    if isinstance(shift, Tensor):
        right = shift.clamp(1, _HIGHEST_SHIFT)
        rounded = (value >> right) + ((value >> (right - 1)) & 1)
        return torch.where(shift > 0, rounded, value << (-shift).clamp(min=0))
    if shift <= 0:
        return value << -shift
    bounded = min(shift, _HIGHEST_SHIFT)
    return (value >> (bounded - 1)).bitwise_and_(1).add_(value >> bounded)


def requantise(accumulator: Tensor, multiplier: int | Tensor, shift: int | Tensor) -> Tensor:
    """Scale accumulators onto a grid: accumulator * multiplier * 2**-shift."""
    return shift_round(accumulator * multiplier, shift)


def divide_round(numerator: Tensor, denominator: int | Tensor) -> Tensor:
    """numerator / denominator rounded half up; denominator > 0."""
    return torch.div(2 * numerator + denominator, 2 * denominator, rounding_mode="floor")


def bit_length(value: Tensor) -> Tensor:
    """Bits of non-negative values, as `int.bit_length`."""
    length = torch.zeros_like(value)
    for step in (32, 16, 8, 4, 2, 1):
        large = (value >> step) > 0
        length = length + large * step
        value = torch.where(large, value >> step, value)
    return length + (value > 0)


def reciprocal_sqrt(value: Tensor) -> tuple[Tensor, Tensor]:
    """(r, h) with 1/sqrt(value) ~ r * 2**-(46 + h); value >= 1.

    The root comes from float64: for a mantissa below 2**48 the correctly rounded root never
    reaches the next integer, so its floor is the integer square root.
    """
    h = (bit_length(value) - 47) >> 1
    mantissa = torch.where(h >= 0, value >> (2 * h).clamp(min=0), value << (-2 * h).clamp(min=0))
    root = mantissa.to(torch.float64).sqrt().floor().to(torch.int64)
    one = torch.full_like(root, 1 << numerics.RSQRT_FRACTION)
    return torch.div(one, root, rounding_mode="floor"), h


def group_moments(
    total: Tensor, squares: Tensor, count: int | Tensor, epsilon: int | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, r, h) of normalisation groups; count * squares must stay below 2**63."""
    mean = divide_round(total << numerics.MEAN_FRACTION, count)
    r, h = reciprocal_sqrt(count * squares - total * total + epsilon)
    return mean, r, h


def move_by_trend(
    mean: Tensor,
    r: Tensor,
    mean_last: Tensor,
    mean_now: Tensor,
    inverse_now: Tensor,
    sigma_last: Tensor,
) -> tuple[Tensor, Tensor]:
    """Statistics of the last executed step moved by the calibrated change."""
    ratio = shift_round(inverse_now * sigma_last, numerics.TREND_FRACTION)
    return mean + mean_now - mean_last, shift_round(r * ratio, numerics.TREND_FRACTION)


def channel_constants(
    mean: Tensor,
    r: Tensor,
    h: Tensor,
    gain: Tensor,
    offset: Tensor,
    gain_shift: int | Tensor,
    mean_shift: int | Tensor,
) -> tuple[Tensor, Tensor]:
    """(A, B) of channels: z = shift_round(A*y + B, z_shift)."""
    a = saturate(shift_round(gain * r, gain_shift + h), numerics.GAIN_BITS)
    return a, offset - shift_round(a * mean, mean_shift)


def pre_activation(y: Tensor, a: Tensor, b: int | Tensor, z_shift: int | Tensor) -> Tensor:
    """Normalised pre-activation z of raw values (b = 0 and y = dy: its change)."""
    return saturate(shift_round(a * y + b, z_shift), numerics.Z_BITS)


def normalise_token(
    values: Tensor, count: int, epsilon: int, stat_shift: int, shift: int, centred: bool
) -> Tensor:
    """Values (..., channels) less the mean of their position, over its deviation."""
    shifted = values >> stat_shift
    total = shifted.sum(-1, keepdim=True) if centred else torch.zeros_like(shifted[..., :1])
    squares = (shifted * shifted).sum(-1, keepdim=True)
    mean, r, h = group_moments(total, squares, count, epsilon)
    centre = (values << numerics.MEAN_FRACTION) - (mean << stat_shift)
    return saturate(shift_round(saturate(centre, numerics.CENTRED_BITS) * r, shift + h), 32)


def product_code(a: Tensor, b: Tensor, multiplier: int, shift: int, zero: int) -> Tensor:
    """int8 codes of products of codes less their zeros."""
    return saturate(requantise(a * b, multiplier, shift) + zero, 8)


def segment_index(z: Tensor, breaks: Tensor) -> Tensor:
    """Number of breaks <= z; `breaks` is (n,), ascending."""
    if breaks.numel() == 0:
        return torch.zeros_like(z)
    return torch.bucketize(z.contiguous(), breaks, right=True)


def activation_code(
    z: Tensor, slope: Tensor, intercept: Tensor, code_shift: int | Tensor, low: int, high: int
) -> Tensor:
    """int8 code of the piecewise-linear activation at z, in its segment."""
    return shift_round(slope * z + intercept, code_shift).clamp(low, high)


def masked_delta(
    dz: Tensor, slope: Tensor, code_shift: int, residue: int | Tensor, carry_bits: int
) -> Tensor:
    """Change of the activation with `carry_bits` fraction bits, residue of the last step added."""
    return shift_round(slope * dz, code_shift - carry_bits) + residue


def encode_group(
    deltas: Tensor, inlier_bits: int, full_lanes: int, spill: bool
) -> tuple[Tensor, Tensor]:
    """What groups of consecutive channels send, and which of their elements were clipped.

    `deltas` is (..., group). The leftmost `full_lanes` outliers of a group stay wide, later ones
    are clipped to the inlier range, or kept where `spill` is set. The second result is a bool
    tensor of the same shape.
    """
    low, high = -(1 << (inlier_bits - 1)), (1 << (inlier_bits - 1)) - 1
    deltas = saturate(deltas, numerics.DELTA_BITS)
    outliers = (deltas < low) | (deltas > high)
    if spill or not bool((outliers.sum(-1) > full_lanes).any()):
        return deltas, torch.zeros_like(outliers)
    clipped = outliers & (outliers.cumsum(-1) > full_lanes)
    return torch.where(clipped, deltas.clamp(low, high), deltas), clipped


def softmax_row(
    scores: Tensor, multiplier: int, shift: int, table: Tensor
) -> tuple[Tensor, Tensor]:
    """Unnormalised softmax codes (..., keys) and 2**30 over their sums (..., 1)."""
    top = scores.amax(-1, keepdim=True)
    entries = requantise(top - scores, multiplier, shift)
    codes = table[entries.clamp(max=numerics.SOFTMAX_ENTRIES - 1)]
    total = codes.sum(-1, keepdim=True)
    one = torch.full_like(total, 1 << numerics.RECIPROCAL_FRACTION)
    return codes, torch.div(one, total, rounding_mode="floor")


def attention_code(
    product: Tensor, reciprocal: Tensor, multiplier: int, shift: int, zero: int
) -> Tensor:
    """int8 codes of attention outputs: product of softmax codes and V, normalised, requantised."""
    mean = shift_round(
        product * reciprocal, numerics.RECIPROCAL_FRACTION - numerics.SOFTMAX_FRACTION
    )
    return saturate(requantise(mean, multiplier, shift) + zero, 8)
