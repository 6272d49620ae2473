"""Normalisation constants: group sums, reciprocal square root, per-channel A and B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from signmask.hw.spec.isa import MAX_PARTS
from signmask.hw.spec.numerics import TREND_FRACTION
from signmask.hw.spec.widths import (
    COUNT_LIMIT,
    FACTOR_LIMIT,
    GAIN_SHIFT_LIMIT,
    MEAN_LIMIT,
    MEAN_SHIFT_LIMIT,
    RATIO_LIMIT,
    TOTAL_LIMIT,
    TREND_GROUPS,
    VARIANCE_LIMIT,
)
from signmask.sim import arithmetic
from signmask.sim.errors import Fault


class Part(NamedTuple):
    """One of the concatenated streams: planes of memory layout and valid channels."""

    planes: int
    channels: int


def normalised_parts(d: Mapping[str, int], group: int) -> tuple[Part, ...]:
    """Parts of a norm record or descriptor; raises Fault where their sizes cannot be."""
    if d["images"] < 1 or not 1 <= d["parts"] <= MAX_PARTS:
        raise Fault(f"normalises {d['images']} images of {d['parts']} parts")
    parts = tuple(Part(d[f"planes_{i}"], d[f"channels_{i}"]) for i in range(d["parts"]))
    if sum(part.planes for part in parts) != d["planes"]:
        raise Fault(f"normalises {d['planes']} planes whose parts have others")
    for part in parts:
        if part.channels < 1 or part.planes != -(-part.channels // group):
            raise Fault(f"normalises {part.channels} channels in {part.planes} planes")
    return parts


@lru_cache(maxsize=256)
def channel_places(parts: tuple[Part, ...], group: int) -> np.ndarray:
    """intp: where each valid channel lies among the padded channels of the concatenation."""
    start, places = 0, []
    for part in parts:
        places.append(start + np.arange(part.channels))
        start += part.planes * group
    return np.concatenate(places)


class Moments(NamedTuple):
    """Mean, r and h per image and group, int64 (images, groups)."""

    mean: np.ndarray
    r: np.ndarray
    h: np.ndarray


def _check(values: np.ndarray, limit: int, what: str) -> None:
    if values.size and (values.min() < -limit or values.max() >= limit):
        raise Fault(f"has {what} beyond {limit.bit_length()} bits")


@dataclass(frozen=True)
class Normalisation:
    """Constants of one boundary, from the fields of its descriptor.

    gain and offset: int64 (planes * group,). Padding channels have A = B = 0. Raises Fault for what
    the unit's registers do not hold.
    """

    descriptor: Mapping[str, int]
    parts: tuple[Part, ...]
    group: int
    gain: np.ndarray
    offset: np.ndarray

    def moments(self, sums: np.ndarray) -> Moments:
        """Statistics from sums, int64 (planes, images, 2, group) of all parts."""
        d = self.descriptor
        places = channel_places(self.parts, self.group)
        if d["groups"] < 1 or places.size % d["groups"]:
            raise Fault(f"has {places.size} channels for {d['groups']} groups")
        count, epsilon = d["count"], d["epsilon"]
        if not 1 <= count < COUNT_LIMIT or epsilon < 1:
            raise Fault(f"has a count of {count} and an epsilon of {epsilon}")
        images = sums.shape[1]
        channels = sums.transpose(2, 1, 0, 3).reshape(2, images, -1)[..., places]
        total, squares = channels.reshape(2, images, d["groups"], -1).sum(axis=-1)
        _check(total, TOTAL_LIMIT, "a group's sum")
        if squares.min() < 0 or squares.max() > (VARIANCE_LIMIT - 1 - epsilon) // count:
            raise Fault("has a group's sum of squares beyond 63 bits")
        if (count * squares - total * total + epsilon).min() < 1:
            raise Fault("has a group's sum that its sum of squares does not allow")
        return Moments(*arithmetic.group_moments(total, squares, count, epsilon))

    def moved(
        self, moments: Moments, mean_last: np.ndarray, mean_now: np.ndarray,
        inverse_now: np.ndarray, sigma_last: np.ndarray,
    ) -> Moments:  # fmt: skip
        """Moments moved by the calibrated change, from tables int64 (groups,)."""
        if mean_last.size > TREND_GROUPS:
            raise Fault(f"moves {mean_last.size} groups by a trend, of at most {TREND_GROUPS}")
        _check(np.stack([inverse_now, sigma_last]), FACTOR_LIMIT, "a calibrated deviation")
        ratio = arithmetic.shift_round(inverse_now * sigma_last, TREND_FRACTION)
        _check(ratio, RATIO_LIMIT, "a ratio of calibrated deviations")
        mean, r = arithmetic.move_by_trend(
            moments.mean, moments.r, mean_last, mean_now, inverse_now, sigma_last
        )
        return Moments(mean, r, moments.h)

    def constants(self, moments: Moments) -> tuple[np.ndarray, np.ndarray]:
        """(A, B), int64 (planes, images, group)."""
        d = self.descriptor
        gain_shift, mean_shift = d["gain_shift"], d["mean_shift"]
        if not 0 <= gain_shift < GAIN_SHIFT_LIMIT or abs(mean_shift) >= MEAN_SHIFT_LIMIT:
            raise Fault(f"has normalisation shifts of {gain_shift} and {mean_shift}")
        _check(moments.mean, MEAN_LIMIT, "a group's mean")
        if moments.r.min() < 0 or moments.r.max() >= FACTOR_LIMIT:
            raise Fault("has a group's reciprocal deviation beyond 31 bits")
        places = channel_places(self.parts, self.group)
        _check(self.gain[places], FACTOR_LIMIT, "a channel's gain")
        repeat = places.size // d["groups"]
        mean, r, h = (np.repeat(value, repeat, axis=1) for value in moments)
        valid = arithmetic.channel_constants(
            mean, r, h, self.gain[places], self.offset[places], gain_shift, mean_shift
        )
        images, padded = len(mean), self.gain.size
        both = np.zeros((2, images, padded), np.int64)
        both[:, :, places] = valid
        a, b = both.reshape(2, images, -1, self.group).transpose(0, 2, 1, 3)
        return a, b
