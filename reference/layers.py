"""Operators of a quantised network on int64 tensors: linear, encoding, attention.

Each class reads its tensors once, checks their shapes and keeps them on the device. None of them
holds state between steps (`state.py` does).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from signmask.hw.spec import numerics
from signmask.hw.spec.network import Attention, CodeSource, Encoding, Linear, Norm, Product
from signmask.reference import arithmetic

FLOAT32_EXACT = 1 << 24  # integer sums up to here are exact in float32
FLOAT64_EXACT = 1 << 53

Reader = Callable[..., Tensor]


def tensor_reader(tensors: Mapping[str, np.ndarray], device: torch.device) -> Reader:
    """A function (name, *shape) -> int64 tensor that raises ValueError if absent or misshaped.

    A size of -1 accepts any length. With `rows`, a tensor without the first dimension is repeated
    along it.
    """

    def read(name: str, *shape: int, rows: bool = False) -> Tensor:
        if name not in tensors:
            raise ValueError(f"tensor '{name}' is missing from the network; compile it again.")
        value = np.asarray(tensors[name])
        if value.dtype.kind not in "iu":
            raise ValueError(
                f"tensor '{name}' is of type {value.dtype}; integers are required, compile again."
            )
        if rows and value.ndim == len(shape) - 1:
            value = np.broadcast_to(value, (shape[0], *value.shape))
        if len(value.shape) != len(shape) or any(
            want not in (size, -1) for size, want in zip(value.shape, shape, strict=False)
        ):
            raise ValueError(
                f"tensor '{name}' has shape {value.shape} where the network needs {shape}; "
                "compile it again."
            )
        return torch.tensor(value.astype(np.int64), device=device)

    return read


def read_steps(read: Reader, name: str, steps: int, channels: int) -> Tensor:
    """(steps, channels) of a tensor that has a row per step, or one for all of them."""
    return read(name, steps, channels, rows=True)


class LinearOperator:
    """Convolution or matrix product with exact float32 or float64 products (im2col and BLAS).

    float32 is used where max(sum of |weight|) * max|operand| <= 2**24: then every partial sum, in
    whatever order, is an exactly representable integer.
    """

    def __init__(self, linear: Linear, source: Encoding | CodeSource, read: Reader) -> None:
        self.linear = linear
        self.source = source
        k, channels = linear.kernel, source.channels
        groups, outputs = linear.groups, linear.out_channels
        if channels % groups or outputs % groups:
            raise ValueError(
                f"linear '{linear.name}' cannot split {channels} and {outputs} channels into "
                f"{groups} groups; compile the network again."
            )
        weight = read(linear.weight, outputs, k, k, channels // groups)
        self.magnitude = int(weight.abs().sum((1, 2, 3)).max())
        # (groups, kernel * kernel * inputs of a group, outputs of a group)
        matrix = weight.reshape(groups, outputs // groups, -1).transpose(1, 2).contiguous()
        self._matrices = {dtype: matrix.to(dtype) for dtype in (torch.float32, torch.float64)}
        self.multiplier = read(linear.multiplier, linear.out_channels) if linear.out else None
        self._check_size()

    def _check_size(self) -> None:
        linear, source = self.linear, self.source
        pointwise = linear.kernel == 1 and linear.stride == 1 and linear.upsample == 1
        inside, outside = source.height * source.width, linear.out_height * linear.out_width
        # Tokens are pixels in row order, so a product per position may change the view.
        self._view_only = pointwise and linear.padding == 0 and inside == outside
        if self._view_only:
            return
        for size, out in ((source.height, linear.out_height), (source.width, linear.out_width)):
            padded = size * linear.upsample + 2 * linear.padding
            # One row less at the far edge than symmetric padding reaches is what a stride leaves;
            # one more is the asymmetric padding of some strided convolutions.
            reach = (out - 1) * linear.stride + linear.kernel
            if out < 1 or reach - padded > 1 or padded - reach >= linear.stride:
                raise ValueError(
                    f"linear '{linear.name}' cannot make {out} positions of {size} with kernel "
                    f"{linear.kernel}, stride {linear.stride}, padding {linear.padding} and "
                    f"upsampling {linear.upsample}; compile the network again."
                )

    def __call__(self, operands: Tensor, pad: int, bound: int) -> Tensor:
        """int64 accumulators (batch, out_height, out_width, out_channels).

        operands: (batch, height, width, channels) with |operand| <= bound; positions outside the
        image count as `pad`.
        """
        linear = self.linear
        worst = self.magnitude * bound
        if worst > FLOAT64_EXACT:
            raise OverflowError(
                f"linear '{linear.name}' may sum to {worst}, beyond exact float64; split it."
            )
        dtype = torch.float32 if worst <= FLOAT32_EXACT else torch.float64
        batch, channels = operands.shape[0], operands.shape[-1]
        columns = operands.to(dtype)
        if not self._view_only:
            columns = self._columns(columns, pad)
        matrix, groups, taps = self._matrices[dtype], linear.groups, linear.kernel**2
        if groups == 1:
            product = columns.reshape(-1, taps * channels) @ matrix[0]
        else:
            split = columns.reshape(-1, taps, groups, channels // groups).permute(2, 0, 1, 3)
            product = (split.reshape(groups, -1, matrix.shape[1]) @ matrix).transpose(0, 1)
        shape = (batch, linear.out_height, linear.out_width, linear.out_channels)
        return product.to(torch.int64).reshape(shape)

    def _columns(self, image: Tensor, pad: int) -> Tensor:
        """Patches (batch, out_height, out_width, kernel, kernel, channels) as a strided view."""
        linear = self.linear
        if linear.upsample > 1:
            image = image.repeat_interleave(linear.upsample, 1)
            image = image.repeat_interleave(linear.upsample, 2)
        before, after = linear.padding, []
        for size, out in zip(image.shape[1:3], (linear.out_height, linear.out_width), strict=True):
            after.append((out - 1) * linear.stride + linear.kernel - before - size)
        if before or any(after):
            image = torch.nn.functional.pad(
                image, (0, 0, before, after[1], before, after[0]), value=float(pad)
            )
        n, row, column, channel = image.stride()
        return image.as_strided(
            (
                image.shape[0], linear.out_height, linear.out_width,
                linear.kernel, linear.kernel, image.shape[3],
            ),
            (n, row * linear.stride, column * linear.stride, row, column, channel),
        )  # fmt: skip

    def requantise(self, accumulators: Tensor) -> Tensor:
        """Accumulators on the grid of the stream that this operator writes."""
        if self.multiplier is None:
            raise ValueError(f"linear '{self.linear.name}' is the output; it has no grid.")
        return arithmetic.requantise(accumulators, self.multiplier, self.linear.shift)


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

    def __init__(self, norm: Norm, encoding: Encoding, steps: int, read: Reader) -> None:
        channels, groups = encoding.channels, norm.groups
        elements = channels * encoding.height * encoding.width
        if channels % groups or elements != norm.count * groups:
            raise ValueError(
                f"encoding '{encoding.name}' has {elements} elements where its norm needs {groups} "
                f"groups of {norm.count}; compile the network again."
            )
        self.norm = norm
        self.gain = read_steps(read, norm.gain, steps, channels)
        self.offset = read_steps(read, norm.offset, steps, channels)
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
        batch = y.shape[0]
        total = shifted.sum((1, 2)).reshape(batch, self.norm.groups, -1).sum(-1)
        squares = (shifted * shifted).sum((1, 2)).reshape(batch, self.norm.groups, -1).sum(-1)
        return Moments(
            *arithmetic.group_moments(total, squares, self.norm.count, self.norm.epsilon)
        )

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

    def __init__(self, encoding: Encoding, steps: int, read: Reader) -> None:
        self.encoding = encoding
        self.norm = NormTables(encoding.norm, encoding, steps, read) if encoding.norm else None
        if self.norm is None:
            self._affine_a = read_steps(read, encoding.affine_a, steps, encoding.channels)
            self._affine_b = read_steps(read, encoding.affine_b, steps, encoding.channels)
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


class ProductOperator:
    """Elementwise product of the codes of two encodings."""

    def __init__(self, product: Product, a: Encoding, b: Encoding, out: CodeSource) -> None:
        if not a.channels == b.channels == out.channels:
            raise ValueError(
                f"product '{product.name}' multiplies {a.channels} and {b.channels} channels into "
                f"{out.channels}; compile the network again."
            )
        self.product, self.zeros, self.zero = product, (a.zero, b.zero), out.zero

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Codes of the product from those of its factors."""
        item = self.product
        return arithmetic.product_code(
            a - self.zeros[0], b - self.zeros[1], item.multiplier, item.shift, self.zero
        )


class AttentionOperator:
    """softmax(Q K^T) V on int8 codes of raw streams, or of constant keys and values."""

    def __init__(
        self, attention: Attention, out: CodeSource, batch: int, read: Reader, device: torch.device
    ) -> None:
        if out.channels % attention.heads:
            raise ValueError(
                f"attention '{attention.name}' cannot split {out.channels} channels into "
                f"{attention.heads} heads; compile the network again."
            )
        self.attention = attention
        self.out = out
        self.table = torch.tensor(numerics.exponential_table(), device=device)
        if attention.frames and batch % attention.frames:
            raise ValueError(
                f"attention '{attention.name}' joins {attention.frames} images and the batch is "
                f"{batch}; compile it for a multiple."
            )
        self.constant: tuple[Tensor, Tensor] | None = None
        if attention.keys:
            keys, values = (
                read(attention.keys, -1, -1, out.channels),
                read(attention.values, -1, -1, out.channels),
            )
            if keys.shape != values.shape or len(keys) not in (1, batch):
                raise ValueError(
                    f"attention '{attention.name}' has keys {tuple(keys.shape)} and values "
                    f"{tuple(values.shape)} for {batch} images; compile it for {len(keys)}."
                )
            self.constant = self._split(keys), self._split(values)

    def _split(self, codes: Tensor) -> Tensor:
        """Codes as float64 (batch, heads, tokens, channels of a head)."""
        heads, channels = self.attention.heads, codes.shape[-1]
        split = codes.reshape(len(codes), -1, heads, channels // heads).transpose(1, 2)
        return split.to(torch.float64)  # sums stay far below 2**53

    def _codes(self, y: Tensor, multiplier: int, shift: int) -> Tensor:
        codes = arithmetic.saturate(arithmetic.requantise(y, multiplier, shift), 8)
        return self._split(self._turned(codes))

    def _turned(self, codes: Tensor) -> Tensor:
        """(rows, tokens, channels): the frames of each position of each video as tokens."""
        frames, channels = self.attention.frames, codes.shape[-1]
        if not frames:
            return codes.reshape(len(codes), -1, channels)
        videos = codes.reshape(len(codes) // frames, frames, -1, channels).transpose(1, 2)
        return videos.reshape(-1, frames, channels)

    def __call__(self, q: Tensor, *others: Tensor) -> Tensor:
        """Codes (batch, height, width, channels) of the output from raw values of q and, unless
        they are constant, of k and v."""
        a = self.attention
        queries = self._codes(q, a.q_multiplier, a.q_shift)
        if self.constant is not None:
            keys, values = self.constant
        else:
            k, v = others
            keys = self._codes(k, a.k_multiplier, a.k_shift)
            values = self._codes(v, a.v_multiplier, a.v_shift)
        scores = (queries @ keys.transpose(2, 3)).to(torch.int64)
        weights, reciprocal = arithmetic.softmax_row(
            scores, a.score_multiplier, a.score_shift, self.table
        )
        product = (weights.to(torch.float64) @ values).to(torch.int64)
        codes = arithmetic.attention_code(
            product, reciprocal, a.out_multiplier, a.out_shift, self.out.zero
        )
        joined = codes.transpose(1, 2)
        if a.frames:
            positions = self.out.height * self.out.width
            joined = joined.reshape(-1, positions, a.frames, self.out.channels).transpose(1, 2)
        return joined.reshape(q.shape[0], self.out.height, self.out.width, self.out.channels)


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
