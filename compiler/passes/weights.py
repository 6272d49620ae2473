"""Weights. Needs: formats and grids. Guarantees: each Linear has int8 weights, multipliers of at
most 15 bits with one shift, and accumulators that provably fit int32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from signmask.compiler.errors import CompileError

MULTIPLIER_BITS = 15
CLIPS = np.linspace(0.6, 1.0, 21)


@dataclass(frozen=True)
class QuantisedWeight:
    """`weight` int8 (out, kernel, kernel, in); `multiplier` int64 (out,); `scale` float64 (out,),
    the real value of a weight step; `sums` int64 (out,)."""

    weight: np.ndarray
    multiplier: np.ndarray
    shift: int
    scale: np.ndarray
    sums: np.ndarray


def optimal_scale(weight: np.ndarray) -> np.ndarray:
    """Per output channel the int8 step of least square error; (out,) for (out, n) weights."""
    top = np.abs(weight).max(1)
    top = np.where(top > 0, top, 1.0)
    best, error = top / 127, np.full(len(top), np.inf)
    for clip in CLIPS:
        scale = clip * top / 127
        rounded = np.clip(np.rint(weight / scale[:, None]), -127, 127) * scale[:, None]
        now = ((rounded - weight) ** 2).sum(1)
        best, error = np.where(now < error, scale, best), np.minimum(now, error)
    return best


def quantise_weight(
    name: str, weight: np.ndarray, source_scale: float, stream_scale: float | None
) -> QuantisedWeight:
    """Quantise float (out, in, kernel, kernel) weights; `stream_scale` None for the output.

    The step of each channel is what its integer multiplier says, so the multiplier adds no error.
    Raises CompileError where an accumulator could exceed int32.
    """
    real = weight.transpose(0, 2, 3, 1).astype(np.float64)
    flat = real.reshape(len(real), -1)
    scale = optimal_scale(flat)
    multiplier, shift = np.zeros(len(flat), np.int64), 0
    if stream_scale is not None:
        factor = source_scale * scale / stream_scale
        shift = int(MULTIPLIER_BITS - np.ceil(np.log2(factor.max() * (1 + 2.0**-MULTIPLIER_BITS))))
        if not 0 < shift <= 62:
            raise CompileError(
                f"linear '{name}' scales its accumulators by {factor.max():.3g}, outside of what a "
                f"{MULTIPLIER_BITS}-bit multiplier can express; rescale its weights."
            )
        top = (1 << MULTIPLIER_BITS) - 1
        ideal = factor * 2.0**shift
        # A small multiplier is rounded up: a coarser step costs less than clipped weights.
        rounded = np.where(ideal < 256, np.ceil(ideal), np.rint(ideal))
        multiplier = np.clip(rounded, 1, top).astype(np.int64)
        scale = multiplier * 2.0**-shift * stream_scale / source_scale
    codes = np.clip(np.rint(flat / scale[:, None]), -127, 127)
    bound = 128 * np.abs(codes).sum(1).max()
    if bound >= 2**31:
        raise CompileError(
            f"linear '{name}' sums {flat.shape[1]} products, up to {bound:.3g}, beyond int32; "
            "split its input channels."
        )
    return QuantisedWeight(
        codes.reshape(real.shape).astype(np.int8),
        multiplier,
        shift,
        scale,
        codes.sum(1).astype(np.int64),
    )
