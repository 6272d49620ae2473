"""Piecewise-linear activation: what SFU and near-data engine both evaluate, in one place."""

from __future__ import annotations

import numpy as np

from signmask.hw.spec.numerics import DELTA_BITS
from signmask.sim import arithmetic

MAX_SEGMENTS = 8


class Activation:
    """Segments of one boundary; `table` is int64 (3, group): breaks, slopes, intercepts."""

    def __init__(
        self, table: np.ndarray, z_shift: int, code_shift: int, low: int, high: int
    ) -> None:
        self._breaks = table[0, : MAX_SEGMENTS - 1].copy()
        self._slopes = table[1, :MAX_SEGMENTS].copy()
        self._intercepts = table[2, :MAX_SEGMENTS].copy()
        self._z_shift, self._code_shift = z_shift, code_shift
        self._low, self._high = low, high

    def segments(self, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, ...]:
        """(z int32, segment uint8) of raw values; a and b broadcast to them."""
        z = arithmetic.pre_activation(y, a, b, self._z_shift)
        return z, arithmetic.segment_index(z, self._breaks)

    def encode(self, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(code int64, segment uint8) of raw values."""
        z, segment = self.segments(y, a, b)
        slope, intercept = (
            self._slopes.take(segment, mode="clip"),
            (self._intercepts.take(segment, mode="clip")),
        )
        code = arithmetic.activation_code(
            z, slope, intercept, self._code_shift, self._low, self._high
        )
        return code, segment

    def delta(
        self, dy: np.ndarray, gain: np.ndarray, segment: np.ndarray, loop: str,
        correction: np.ndarray | None, carry_bits: int,
    ) -> tuple[np.ndarray, np.ndarray | None]:  # fmt: skip
        """(change of the code before the encoder, new residue or None) that dy makes.

        `correction` is the correction code of a closed loop or the residue of a carrying one.
        """
        dz = arithmetic.pre_activation(dy, gain, 0, self._z_shift)
        slope = self._slopes.take(segment, mode="clip")
        if loop == "carry" and correction is not None:
            exact = arithmetic.masked_delta(dz, slope, self._code_shift, correction, carry_bits)
            change = arithmetic.shift_round(exact, carry_bits)
            return arithmetic.saturate(change, DELTA_BITS), exact - (change << carry_bits)
        change = arithmetic.masked_delta(dz, slope, self._code_shift, 0, 0)
        if correction is not None:
            change += correction
        return arithmetic.saturate(change, DELTA_BITS), None
