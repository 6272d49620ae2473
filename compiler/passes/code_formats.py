"""Code formats. Needs: a TensorGraph and its calibration. Guarantees: each encoding and code source
has an int8 format (scale, zero) of least square error, and each encoding its linear segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from signmask.compiler.activation_fit import Segments, activation_value, fit
from signmask.compiler.calibration import Calibration
from signmask.compiler.graph import (
    AttentionOp,
    EncodingOp,
    InputOp,
    LinearOp,
    ProductOp,
    TensorGraph,
)

FRACTIONS = np.array([1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4, 0.35,
                      0.3, 0.25, 0.2])  # fmt: skip


@dataclass(frozen=True)
class CodeFormat:
    """real value = scale * (code - zero); `segments` of an encoding's activation; `error` is the
    mean square rounding and clipping error on the calibration data."""

    scale: float
    zero: int
    error: float
    segments: Segments | None = None
    spread: int = 1


def choose_formats(
    graph: TensorGraph, calibration: Calibration, mask_bits: int, group: int
) -> dict[str, CodeFormat]:
    """Formats of encodings, sources and attention operands, by node name. The input is spread over
    the lanes of a `group` that its channels leave idle."""
    formats: dict[str, CodeFormat] = {}
    for name, op in graph.of(EncodingOp):
        z, weight = calibration.centres(name), calibration.histograms[name]
        segments = fit(op.activation, mask_bits, z, weight)
        values = activation_value(op.activation, z)
        scale, zero, error = asymmetric(values, weight)
        formats[name] = CodeFormat(scale, zero, error, segments)
    for name, op in graph.of(InputOp):
        grouped = any(
            linear.groups > 1 for _, linear in graph.of(LinearOp) if linear.source == name
        )
        spread = 1 if grouped else max(1, group // op.channels)
        formats[name] = CodeFormat(*symmetric(calibration, name, 127 * spread), spread=spread)
    for kind in (AttentionOp, ProductOp):
        for name, _ in graph.of(kind):
            formats[name] = CodeFormat(*symmetric(calibration, name))
    for _, attention in graph.of(AttentionOp):
        for name in attention.streams:
            formats[name] = CodeFormat(*symmetric(calibration, name))
    return formats


def constant_format(values: np.ndarray) -> CodeFormat:
    """Symmetric format of least square error of constant keys or values."""
    magnitudes = np.abs(values.astype(np.float64)).reshape(-1)
    top = float(magnitudes.max(initial=0.0)) or 1.0
    counts, edges = np.histogram(magnitudes, 512, (0.0, top))
    centres = (edges[1:] + edges[:-1]) / 2
    error, scale = min(
        (_error(centres, counts, f * top / 127, 0), f * top / 127) for f in FRACTIONS
    )
    return CodeFormat(float(scale), 0, error)


def symmetric(calibration: Calibration, name: str, high: int = 127) -> tuple[float, int, float]:
    """(scale, 0, error) with codes -high..high."""
    values, weight = calibration.centres(name), calibration.histograms[name]
    used = np.abs(values[weight > 0])
    top = float(used.max()) if len(used) else 0.0
    top = top if top > 0 else 1.0
    choices = [
        (_error(values, weight, f * top / high, 0, -high - 1, high), f * top / high)
        for f in FRACTIONS
    ]
    error, scale = min(choices)
    return float(scale), 0, error


def asymmetric(values: np.ndarray, weight: np.ndarray) -> tuple[float, int, float]:
    """(scale, zero, error) with codes -128..127; the range always holds real zero."""
    used = values[weight > 0]
    low, high = (min(float(used.min()), 0.0), max(float(used.max()), 0.0)) if len(used) else (0, 0)
    if high - low < 1e-12:
        return 1.0, 0, 0.0
    best: tuple[float, float, int] | None = None
    # A clipped lower end only pays where it reaches as far as the upper one.
    lower = FRACTIONS if -low > 0.2 * high else FRACTIONS[:1]
    upper = FRACTIONS if high > -0.2 * low else FRACTIONS[:1]
    for f in lower:
        for g in upper:
            scale = (g * high - f * low) / 255
            zero = int(np.clip(np.rint(-128 - f * low / scale), -128, 127))
            error = _error(values, weight, scale, zero)
            if best is None or error < best[0]:
                best = (error, scale, zero)
    error, scale, zero = best if best is not None else (0.0, 1.0, 0)
    return float(scale), zero, error


def _error(
    values: np.ndarray, weight: np.ndarray, scale: float, zero: int, low: int = -128,
    high: int = 127,
) -> float:  # fmt: skip
    """Mean square error: clipping exactly, rounding as uniform noise (bins may be coarser)."""
    inside = np.clip(values, (low - zero) * scale, (high - zero) * scale)
    clipped = (values - inside) ** 2
    rounding = np.where(inside == values, scale * scale / 12, 0.0)
    return float(((clipped + rounding) * weight).sum() / max(weight.sum(), 1e-30))
