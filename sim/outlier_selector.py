"""Outlier selector: which deltas of a group travel wide, which are clipped."""

from __future__ import annotations

import numpy as np

from signmask.hw.spec.numerics import DELTA_BITS


class OutlierSelector:
    """Encodes groups along the last axis (`numerics.encode_group`)."""

    def __init__(self, inlier_bits: int, full_lanes: int) -> None:
        self.full_lanes = full_lanes
        self.low, self.high = -(1 << (inlier_bits - 1)), (1 << (inlier_bits - 1)) - 1

    def outliers(self, values: np.ndarray) -> np.ndarray:
        """bool: outside the inlier range."""
        return (values < self.low) | (values > self.high)

    def encode(self, deltas: np.ndarray, spill: bool) -> tuple[np.ndarray, np.ndarray]:
        """(sent int16, clipped bool) of deltas (..., group)."""
        limit = 1 << (DELTA_BITS - 1)
        sent = np.minimum(np.maximum(deltas, -limit), limit - 1).astype(np.int16)
        clipped = np.zeros(sent.shape, bool)
        if spill:
            return sent, clipped
        outlier = self.outliers(sent)
        crowded = np.count_nonzero(outlier, axis=-1) > self.full_lanes
        if crowded.any():
            dense = outlier[crowded]
            late = dense & (np.cumsum(dense, axis=-1) > self.full_lanes)
            rows = sent[crowded]
            sent[crowded] = np.where(late, np.clip(rows, self.low, self.high), rows)
            clipped[crowded] = late
        return sent, clipped
