"""Weights. Needs: formats and grids. Guarantees: each Linear has int8 weights, multipliers of at
most 15 bits with one shift, and accumulators that provably fit int32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from signmask.compiler.errors import CompileError
from signmask.compiler.synthetic import absent, is_absent
from signmask.hw.spec.numerics import DELTA_BITS
from signmask.hw.spec.widths import MULTIPLIER_BITS

CLIPS = np.linspace(0.6, 1.0, 21)
# Up to this size every clip is tried; beyond, rounding errors are as uniform as the estimate says.
SEARCHED = 1 << 18
BINS = 100  # of |weight| / largest; every clip is an edge
BLOCK = 1 << 17  # elements that stay in a core's cache
# Absent weights are taken for normal, of variance 1 / inputs, clipped at this many deviations.
ABSENT_CLIP = 4.5


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
    """Per output channel the int8 step of least square error; (out,) for float32 (out, n) weights.

    Large matrices take the least estimated error: uniform rounding of what is inside, and the
    clipped part counted in a histogram.
    """
    top = np.concatenate([np.abs(part).max(1) for _, part in _blocks(weight)]).astype(np.float64)
    top = np.where(top > 0, top, 1.0)
    if weight.size > SEARCHED:
        return _estimated_clip(weight, top) * top / 127
    exact = weight.astype(np.float64)
    best, error = top / 127, np.full(len(top), np.inf)
    for clip in CLIPS:
        scale = clip * top / 127
        rounded = np.clip(np.rint(exact / scale[:, None]), -127, 127) * scale[:, None]
        now = ((rounded - exact) ** 2).sum(1)
        best, error = np.where(now < error, scale, best), np.minimum(now, error)
    return best


def spread_inputs(weight: np.ndarray, copies: int) -> np.ndarray:
    """Weights (out, in, kernel, kernel) for `copies` of the inputs, one after the other."""
    if copies == 1:
        return weight
    if is_absent(weight):
        out, channels, *kernel = weight.shape
        return absent((out, copies * channels, *kernel))
    return np.tile(weight, (1, copies, 1, 1))


def quantise_weight(
    name: str, weight: np.ndarray, source_scale: float, stream_scale: float | None
) -> QuantisedWeight:
    """Quantise float32 (out, in, kernel, kernel) weights; `stream_scale` None for the output.

    The step of each channel is what its integer multiplier says, so the multiplier adds no error.
    Absent weights stay absent: zeros that take no memory, with a plausible step. Raises
    CompileError where an accumulator could exceed int32.
    """
    out, channels, kernel, _ = weight.shape
    missing = is_absent(weight)
    flat = weight.reshape(out, -1) if not missing else weight[:, :, 0, 0]
    inputs = channels * kernel * kernel
    scale = np.full(out, ABSENT_CLIP / 127 / inputs**0.5) if missing else optimal_scale(flat)
    multiplier, shift = np.zeros(out, np.int64), 0
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
    if missing:
        nothing = np.broadcast_to(np.int8(0), (out, kernel, kernel, channels))
        return QuantisedWeight(nothing, multiplier, shift, scale, np.zeros(out, np.int64))
    codes, sums, largest = _codes(flat, scale)
    check_accumulator(name, largest)
    ordered = np.ascontiguousarray(codes.reshape(weight.shape).transpose(0, 2, 3, 1))
    return QuantisedWeight(ordered, multiplier, shift, scale, sums)


def check_accumulator(name: str, largest: int) -> None:
    """Raise CompileError where a row of weights, whose magnitudes sum to `largest`, could exceed
    int32 with operands of DELTA_BITS, which codes and deltas are within."""
    bound = largest << (DELTA_BITS - 1)
    if bound >= 1 << 31:
        raise CompileError(
            f"linear '{name}' may reach {bound} in its accumulator, beyond int32; split its input "
            "channels over two layers."
        )


def _blocks(weight: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Runs of rows that fit the cache."""
    rows = max(1, BLOCK // weight.shape[1])
    for start in range(0, len(weight), rows):
        part = slice(start, min(start + rows, len(weight)))
        yield part, weight[part]


def _estimated_clip(weight: np.ndarray, top: np.ndarray) -> np.ndarray:
    """The clip of least estimated square error of each row, of largest magnitudes `top`."""
    edges = np.rint(CLIPS * BINS).astype(np.int64)
    # Square error beyond a clip, of values spread over a bin; the last bin is the largest itself.
    beyond = np.maximum((np.arange(BINS + 1) + 0.5) / BINS - CLIPS[:, None], 0.0)
    past = beyond**2 + (beyond > 0) / (12 * BINS**2)
    past[:, -1] = (1 - CLIPS) ** 2
    rounding = (CLIPS / 127) ** 2 / 12
    best = np.zeros(len(weight))
    for part, rows in _blocks(weight):
        index = np.abs(rows)
        index *= (BINS / top[part, None]).astype(np.float32)
        bins = np.minimum(index.astype(np.int32), BINS)
        bins += (np.arange(len(rows), dtype=np.int32) * (BINS + 1))[:, None]
        counts = np.bincount(bins.reshape(-1), minlength=len(rows) * (BINS + 1))
        counts = counts.reshape(len(rows), -1).astype(np.float64)
        inside = counts.cumsum(1)[:, edges - 1]
        best[part] = CLIPS[(counts @ past.T + inside * rounding).argmin(1)]
    return best


def _codes(weight: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """int8 codes (out, n), their int64 sums (out,), and the largest sum of magnitudes of a row."""
    codes, sums, largest = np.zeros(weight.shape, np.int8), np.zeros(len(weight), np.int64), 0
    step = scale[:, None].astype(np.float64 if weight.size <= SEARCHED else np.float32)
    for part, rows in _blocks(weight):
        exact = rows / step[part]
        np.rint(exact, out=exact)
        np.clip(exact, -127, 127, out=exact)
        codes[part] = exact
        sums[part] = exact.sum(1, dtype=np.float64).astype(np.int64)
        largest = max(largest, int(np.abs(exact).sum(1, dtype=np.float64).max()))
    return codes, sums, largest
