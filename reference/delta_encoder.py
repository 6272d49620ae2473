"""Encoding of deltas: groups of narrow values with a few full lanes, and what was clipped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from signmask.reference import arithmetic


@dataclass(frozen=True)
class Sent:
    """Deltas as they leave an encoder: int64 values and which of them were clipped (bool)."""

    deltas: Tensor
    clipped: Tensor


def unencoded_counters(elements: int) -> dict[str, int]:
    """Counters of codes that are sent as they are."""
    names = ("zero", "inlier", "outlier", "clipped")
    return {**dict.fromkeys(names, 0), "elements": elements, "segment_changes": 0}


class DeltaEncoder:
    """Groups of consecutive channels; every stream starts a new group, filled up with zeros."""

    def __init__(
        self, channels: tuple[int, ...], group: int, inlier_bits: int, full_lanes: int, spill: bool
    ) -> None:
        self.group, self.inlier_bits = group, inlier_bits
        self.full_lanes, self.spill = full_lanes, spill
        starts, width = [], 0
        for size in channels:
            starts.append(width)
            width += -(-size // group) * group
        self.width = width
        self.aligned = width == sum(channels)
        self._places = torch.cat(
            [start + torch.arange(size) for start, size in zip(starts, channels, strict=True)]
        )

    def __call__(self, deltas: Tensor) -> Sent:
        """Encode (..., channels)."""
        laid_out = deltas
        if not self.aligned:
            laid_out = deltas.new_zeros((*deltas.shape[:-1], self.width))
            laid_out[..., self._places] = deltas
        grouped = laid_out.reshape(-1, self.group)
        sent, clipped = arithmetic.encode_group(
            grouped, self.inlier_bits, self.full_lanes, self.spill
        )
        sent, clipped = sent.reshape(laid_out.shape), clipped.reshape(laid_out.shape)
        if not self.aligned:
            sent, clipped = sent[..., self._places], clipped[..., self._places]
        return Sent(sent, clipped)

    def count(self, sent: Sent) -> dict[str, int]:
        """Numbers of zero, inlier, outlier and clipped elements among valid channels."""
        deltas = sent.deltas
        low, high = -(1 << (self.inlier_bits - 1)), (1 << (self.inlier_bits - 1)) - 1
        elements, nonzero = deltas.numel(), int(deltas.count_nonzero())
        outliers = int(((deltas < low) | (deltas > high)).sum())
        return {
            "zero": elements - nonzero,
            "inlier": nonzero - outliers,
            "outlier": outliers,
            "clipped": int(sent.clipped.sum()),
            "elements": elements,
            "segment_changes": 0,
        }
