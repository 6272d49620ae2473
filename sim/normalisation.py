"""Normalisation constants: group sums, reciprocal square root, per-channel A and B."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from signmask.sim import arithmetic
from signmask.sim.errors import Fault


class Part(NamedTuple):
    """One of the concatenated streams: planes of memory layout and valid channels."""

    planes: int
    channels: int


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


@dataclass(frozen=True)
class Normalisation:
    """Constants of one boundary, from the fields of its descriptor.

    gain and offset: int64 (planes * group,). Padding channels have A = B = 0.
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
        if d["count"] < 1 or d["epsilon"] < 1:
            raise Fault(f"has a count of {d['count']} and an epsilon of {d['epsilon']}, below 1")
        images = sums.shape[1]
        channels = sums.transpose(2, 1, 0, 3).reshape(2, images, -1)[..., places]
        total, squares = channels.reshape(2, images, d["groups"], -1).sum(axis=-1)
        return Moments(*arithmetic.group_moments(total, squares, d["count"], d["epsilon"]))

    def constants(self, moments: Moments) -> tuple[np.ndarray, np.ndarray]:
        """(A, B), int64 (planes, images, group)."""
        d = self.descriptor
        places = channel_places(self.parts, self.group)
        repeat = places.size // d["groups"]
        mean, r, h = (np.repeat(value, repeat, axis=1) for value in moments)
        valid = arithmetic.channel_constants(
            mean, r, h, self.gain[places], self.offset[places], d["gain_shift"], d["mean_shift"]
        )
        images, padded = len(mean), self.gain.size
        both = np.zeros((2, images, padded), np.int64)
        both[:, :, places] = valid
        a, b = both.reshape(2, images, -1, self.group).transpose(0, 2, 1, 3)
        return a, b
