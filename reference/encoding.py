"""Encodings of a quantised network on int64 tensors: normalisation, activation and codes.

An `EncodingOperator` reads its tensors once, checks their shapes and keeps them on the device. It
holds no state between steps (`state.py` does).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from signmask.hw.spec.network import Encoding, Norm
from signmask.reference import arithmetic
from signmask.reference.tensors import TensorReader


class Constants(NamedTuple):
    """A and B of an encoding, int64, broadcastable to (batch, height, width, channels)."""

    a: Tensor
    b: Tensor


class Moments(NamedTuple):
    """Mean, r and h of every normalisation group, int64 (batch, groups)."""

    mean: Tensor
    r: Tensor
    h: Tensor


class NormTables:
    """Tensors of a group normalisation, and what they make of statistics."""

    def __init__(self, norm: Norm, encoding: Encoding, steps: int, read: TensorReader) -> None:
        channels, groups = encoding.channels, norm.groups
        elements = channels * encoding.height * encoding.width
        if channels % groups or elements != norm.count * groups:
            raise ValueError(
                f"encoding '{encoding.name}' has {elements} elements where its norm needs {groups} "
                f"groups of {norm.count}; compile the network again."
            )
        self.norm = norm
        self.gain = read.steps(norm.gain, steps, channels)
        self.offset = read.steps(norm.offset, steps, channels)
        self.cal_mean = read(norm.cal_mean, steps, groups)
        self.cal_inverse = read(norm.cal_inverse, steps, groups)
        self.cal_sigma = read(norm.cal_sigma, steps, groups)
        self.cal_a, self.cal_b = (
            read(norm.cal_a, steps, channels),
            read(norm.cal_b, steps, channels),
        )

    def moments(self, y: Tensor) -> Moments:
        """Statistics of raw values (batch, height, width, channels)."""
        shifted = y >> self.norm.stat_shift if self.norm.stat_shift else y
        return self.moments_of(shifted.sum((1, 2)), (shifted * shifted).sum((1, 2)))

    def moments_of(self, total: Tensor, squares: Tensor) -> Moments:
        """Statistics from sums of y >> stat_shift and of its square, (batch, channels)."""
        norm, shape = self.norm, (len(total), self.norm.groups, -1)
        total, squares = total.reshape(shape).sum(-1), squares.reshape(shape).sum(-1)
        return Moments(*arithmetic.group_moments(total, squares, norm.count, norm.epsilon))

    def moved(self, moments: Moments, last: int, now: int) -> Moments:
        """Trend: statistics of step `last` moved to step `now`."""
        mean, r = arithmetic.move_by_trend(
            moments.mean, moments.r, self.cal_mean[last], self.cal_mean[now],
            self.cal_inverse[now], self.cal_sigma[last],
        )  # fmt: skip
        return Moments(mean, r, moments.h)

    def constants(self, moments: Moments, step: int) -> Constants:
        """Constants of every channel of every image."""
        gain, offset = self.gain[step], self.offset[step]
        repeat = gain.numel() // self.norm.groups
        mean, r, h = (value.repeat_interleave(repeat, 1) for value in moments)
        a, b = arithmetic.channel_constants(
            mean, r, h, gain, offset, self.norm.gain_shift, self.norm.mean_shift
        )
        return Constants(a[:, None, None, :], b[:, None, None, :])

    def calibrated(self, step: int) -> Constants:
        """Constants that calibration stored for a step."""
        return Constants(self.cal_a[step], self.cal_b[step])


@dataclass(frozen=True)
class Codes:
    """Codes of an encoding and the activation segments they lie in, both int64."""

    codes: Tensor
    segments: Tensor


class EncodingOperator:
    """Raw values to int8 codes through constants and a piecewise-linear activation."""

    def __init__(self, encoding: Encoding, steps: int, batch: int, read: TensorReader) -> None:
        self.encoding = encoding
        self.norm = NormTables(encoding.norm, encoding, steps, read) if encoding.norm else None
        if self.norm is None:
            a, b = (
                read.images(name, steps, batch, encoding.channels)
                for name in (encoding.affine_a, encoding.affine_b)
            )
            self._affine_a, self._affine_b = torch.broadcast_tensors(a, b)
        self.slopes = read(encoding.slopes, -1)
        self.segments = self.slopes.numel()
        self.intercepts = read(encoding.intercepts, self.segments)
        self.breaks = read(encoding.breaks, self.segments - 1)
        if bool((self.breaks[1:] < self.breaks[:-1]).any()):
            raise ValueError(f"breaks of encoding '{encoding.name}' must ascend; compile it again.")

    def _affine(self, step: int) -> Constants:
        return Constants(self._affine_a[step], self._affine_b[step])

    def live(self, y: Tensor, step: int) -> Constants:
        """Constants of a step that the statistics of y itself give."""
        if self.norm is None:
            return self._affine(step)
        return self.norm.constants(self.norm.moments(y), step)

    def calibrated(self, step: int) -> Constants:
        """Constants stored for a step."""
        return self.norm.calibrated(step) if self.norm else self._affine(step)

    def trend(self, y: Tensor, last: int, now: int) -> tuple[Constants, Constants]:
        """Constants of `last` from the statistics of its y, and those moved to `now`."""
        if self.norm is None:
            return self._affine(last), self._affine(now)
        moments = self.norm.moments(y)
        moved = self.norm.moved(moments, last, now)
        return self.norm.constants(moments, last), self.norm.constants(moved, now)

    def encode(self, y: Tensor, step: int) -> Codes:
        """Codes and segments of raw values, with the statistics of y itself."""
        token = self.encoding.token_norm
        if token is not None:
            y = arithmetic.normalise_token(
                y, token.count, token.epsilon, token.stat_shift, token.shift, token.centred
            )
        z = self.pre_activation(y, self.live(y, step))
        segments = self.segment(z)
        return Codes(self.code(z, segments, self.slope(segments)), segments)

    def code(self, z: Tensor, segments: Tensor, slope: Tensor) -> Tensor:
        """Code of the activation at every z, whose segment and slope are known."""
        encoding = self.encoding
        intercept = self._entry(self.intercepts, segments)
        return arithmetic.activation_code(
            z, slope, intercept, encoding.code_shift, encoding.low, encoding.high
        )

    def pre_activation(self, y: Tensor, constants: Constants) -> Tensor:
        """z of raw values."""
        return arithmetic.pre_activation(y, constants.a, constants.b, self.encoding.z_shift)

    def pre_activation_change(self, dy: Tensor, gain: Tensor) -> Tensor:
        """Change dz of z that a change dy of y makes."""
        return arithmetic.pre_activation(dy, gain, 0, self.encoding.z_shift)

    def segment(self, z: Tensor) -> Tensor:
        """Segment index of every z."""
        return arithmetic.segment_index(z, self.breaks)

    def slope(self, segments: Tensor) -> Tensor:
        """Slope of every segment index."""
        return self._entry(self.slopes, segments)

    def _entry(self, table: Tensor, segments: Tensor) -> Tensor:
        return table if self.segments == 1 else table.take(segments)
