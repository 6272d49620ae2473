"""Dense integer execution of a Network inside the compiler, for bias correction.

It follows the dense step of `docs/numerics.md` and nothing else; the definition of every mode is
the golden model in `reference/`, which the compiler does not import.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch.nn.functional import conv2d, pad

from signmask.hw.spec.network import Attention, Encoding, Linear, Network, Product, TokenNorm
from signmask.hw.spec.numerics import (
    CENTRED_BITS,
    GAIN_BITS,
    MEAN_FRACTION,
    RECIPROCAL_FRACTION,
    RSQRT_FRACTION,
    SOFTMAX_ENTRIES,
    SOFTMAX_FRACTION,
    Z_BITS,
    exponential_table,
)

Adjust = Callable[[str, torch.Tensor], torch.Tensor]


def shift_round(x: torch.Tensor, shift: int) -> torch.Tensor:
    """`numerics.shift_round` on int64."""
    return x << -shift if shift <= 0 else (x + (1 << (shift - 1))) >> shift


def shift_round_by(x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """The same with a tensor of shifts."""
    right = shift.clamp(min=0)
    half = torch.where(right > 0, torch.ones_like(x) << (right - 1).clamp(min=0), 0)
    return ((x << (-shift).clamp(min=0)) + half) >> right


def saturate(x: torch.Tensor, bits: int) -> torch.Tensor:
    """Clamp to the signed range."""
    return x.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def reciprocal_sqrt(value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`numerics.reciprocal_sqrt` on int64."""
    length = torch.frexp(value.double()).exponent.to(torch.int64)
    # The conversion to float64 rounds: a value just below a power of two may have become it.
    length = length - (value >> (length - 1).clamp(0, 62) == 0).long()
    h = (length - 47) >> 1
    mantissa = torch.where(h >= 0, value >> (2 * h).clamp(min=0), value << (-2 * h).clamp(min=0))
    root = mantissa.double().sqrt().floor().to(torch.int64)
    root = root - (root * root > mantissa).long()
    root = root + ((root + 1) * (root + 1) <= mantissa).long()
    return (1 << RSQRT_FRACTION) // root, h


class DenseEmulator:
    """Dense steps on (N, C, H, W) int64 tensors."""

    def __init__(self, network: Network, tensors: Mapping[str, np.ndarray]) -> None:
        self.network = network
        self.tensors = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in tensors.items()}
        self.weights = {n: self._weight(linear) for n, linear in network.linears.items()}
        self.exponentials = torch.tensor(exponential_table())
        self.producers: dict[str, list[str]] = {}
        for name, linear in network.linears.items():
            self.producers.setdefault(linear.out, []).append(name)

    def _weight(self, linear: Linear) -> torch.Tensor:
        weight = self.tensors[linear.weight].permute(0, 3, 1, 2)
        # Sums below 2**24 are exact in float32, below 2**53 in float64.
        bound = 256 * int(weight.to(torch.int64).abs().sum((1, 2, 3)).max())
        return weight.to(torch.float32 if bound < 1 << 24 else torch.float64).contiguous()

    @torch.no_grad()
    def __call__(
        self, codes: torch.Tensor, step: int, adjust: Adjust | None = None
    ) -> torch.Tensor:
        """Output accumulators for int64 input codes (N, C, H, W). `adjust(name, y)` may replace
        the value of each stream before its first use."""
        self.step, self.adjust = step, adjust
        self.codes: dict[str, torch.Tensor] = {self.network.input: codes}
        self.y: dict[str, torch.Tensor] = {}
        self.accumulators: dict[str, torch.Tensor] = {}
        result = codes
        for name in self.network.order:
            if name in self.network.encodings:
                self.codes[name] = self._encode(self.network.encodings[name])
            elif name in self.network.attentions:
                attention = self.network.attentions[name]
                self.codes[attention.out] = self._attend(attention)
            elif name in self.network.products:
                product = self.network.products[name]
                self.codes[product.out] = self._multiply(product)
            else:
                accumulator = self._linear(self.network.linears[name])
                self.accumulators[name] = accumulator
                if not self.network.linears[name].out:
                    result = accumulator
        return result

    def _linear(self, linear: Linear) -> torch.Tensor:
        source = self.network.shape_of(linear.source)
        weight = self.weights[linear.name]
        x = self.codes[linear.source].to(weight.dtype)
        if linear.upsample > 1:
            x = x.repeat_interleave(linear.upsample, 2).repeat_interleave(linear.upsample, 3)
        if linear.padding:
            x = pad(x, (linear.padding,) * 4, value=source.zero)
        # One row more at the far edge than symmetric padding reaches, where the model pads so.
        far = [
            (out - 1) * linear.stride + linear.kernel - size
            for size, out in zip(x.shape[2:], (linear.out_height, linear.out_width), strict=True)
        ]
        if max(far) > 0 and linear.kernel > 1:
            x = pad(x, (0, max(far[1], 0), 0, max(far[0], 0)), value=source.zero)
        return conv2d(x, weight, None, linear.stride, groups=linear.groups).to(torch.int64)

    def stream(self, name: str) -> torch.Tensor:
        """y of a stream, from its finished accumulators."""
        if name not in self.y:
            stream = self.network.streams[name]
            y = self._row(stream.table)
            if stream.offset:
                offset = self.tensors[stream.offset].to(torch.int64).mT
                offset = offset.unflatten(2, (stream.height, stream.width))
                y = y + self._repeated(offset)
            for producer in self.producers.get(name, ()):
                linear = self.network.linears[producer]
                multiplier = self.tensors[linear.multiplier][None, :, None, None]
                scaled = shift_round(self.accumulators[producer] * multiplier, linear.shift)
                y = y + scaled.reshape(len(scaled), -1, stream.height, stream.width)
            for other in stream.adds:
                y = y + self.stream(other)
            y = saturate(y, stream.bits)
            self.y[name] = self.adjust(name, y) if self.adjust is not None else y
        return self.y[name]

    def _constants(self, encoding: Encoding, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        norm = encoding.norm
        if norm is None:
            return self._row(encoding.affine_a), self._row(encoding.affine_b)
        shifted = (y >> norm.stat_shift).reshape(len(y), norm.groups, -1)
        total, squares = shifted.sum(-1), (shifted * shifted).sum(-1)
        mean = (2 * (total << MEAN_FRACTION) + norm.count) // (2 * norm.count)
        value = norm.count * squares - total * total + norm.epsilon
        r, h = reciprocal_sqrt(value)
        repeat = encoding.channels // norm.groups
        mean, r, h = (t.repeat_interleave(repeat, 1) for t in (mean, r, h))
        mean, r, h = (t[..., None, None] for t in (mean, r, h))
        gain, offset = self._row(norm.gain), self._row(norm.offset)
        a = saturate(shift_round_by(gain * r, norm.gain_shift + h), GAIN_BITS)
        return a, offset - shift_round(a * mean, norm.mean_shift)

    def _row(self, name: str) -> torch.Tensor:
        """int64 (images or 1, channels, 1, 1) of constants that may have a row for each step, and
        there for each image."""
        table = self.tensors[name].to(torch.int64)
        rows = torch.atleast_2d(table[self.step] if table.ndim > 1 else table)
        return self._repeated(rows)[..., None, None]

    def _repeated(self, rows: torch.Tensor) -> torch.Tensor:
        """Row i modulo their number for each image; a single row as it is."""
        images = torch.arange(len(self.codes[self.network.input]))
        return rows if len(rows) == 1 else rows[images % len(rows)]

    @staticmethod
    def _normalise_tokens(y: torch.Tensor, norm: TokenNorm) -> torch.Tensor:
        shifted = y >> norm.stat_shift
        total = shifted.sum(1, keepdim=True) * int(norm.centred)
        squares = (shifted * shifted).sum(1, keepdim=True)
        mean = (2 * (total << MEAN_FRACTION) + norm.count) // (2 * norm.count)
        r, h = reciprocal_sqrt(norm.count * squares - total * total + norm.epsilon)
        centre = saturate((y << MEAN_FRACTION) - (mean << norm.stat_shift), CENTRED_BITS)
        return saturate(shift_round_by(centre * r, norm.shift + h), 32)

    def _multiply(self, product: Product) -> torch.Tensor:
        a, b = (self.codes[n] - self.network.encodings[n].zero for n in (product.a, product.b))
        zero = self.network.sources[product.out].zero
        return saturate(shift_round(a * b * product.multiplier, product.shift) + zero, 8)

    def _encode(self, encoding: Encoding) -> torch.Tensor:
        shape = (encoding.height, encoding.width)
        parts = [self.stream(s) for s in encoding.streams]
        y = torch.cat([part.reshape(*part.shape[:2], *shape) for part in parts], 1)
        if encoding.token_norm:
            y = self._normalise_tokens(y, encoding.token_norm)
        a, b = self._constants(encoding, y)
        z = saturate(shift_round(a * y + b, encoding.z_shift), Z_BITS)
        slopes, intercepts = self.tensors[encoding.slopes], self.tensors[encoding.intercepts]
        segment = torch.searchsorted(self.tensors[encoding.breaks], z.contiguous(), right=True)
        code = shift_round(slopes[segment] * z + intercepts[segment], encoding.code_shift)
        return code.clamp(encoding.low, encoding.high)

    def _attend(self, attention: Attention) -> torch.Tensor:
        operands = []
        for letter in "qkv"[: len(attention.streams)]:
            y = self.stream(getattr(attention, letter))
            multiplier = getattr(attention, f"{letter}_multiplier")
            code = shift_round(y * multiplier, getattr(attention, f"{letter}_shift"))
            code = saturate(code, 8).flatten(2)
            if attention.frames:  # (videos, frames, c, positions) to (videos, positions, c, frames)
                videos = code.unflatten(0, (-1, attention.frames)).transpose(1, 3)
                code = videos.flatten(0, 1)
            operands.append(code)
        for name in (attention.keys, attention.values) if attention.keys else ():
            operands.append(self._repeated(self.tensors[name].to(torch.int64).transpose(1, 2)))
        q, k, v = (x.unflatten(1, (attention.heads, -1)).double() for x in operands)
        scores = (q.transpose(-1, -2) @ k).to(torch.int64)
        below = (scores.amax(-1, keepdim=True) - scores) * attention.score_multiplier
        index = shift_round(below, attention.score_shift).clamp(max=SOFTMAX_ENTRIES - 1)
        weights = self.exponentials[index]
        reciprocal = (1 << RECIPROCAL_FRACTION) // weights.sum(-1)
        product = (v @ weights.double().transpose(-1, -2)).to(torch.int64)
        mean = shift_round(product * reciprocal[:, :, None], RECIPROCAL_FRACTION - SOFTMAX_FRACTION)
        out = self.network.sources[attention.out]
        code = shift_round(mean * attention.out_multiplier, attention.out_shift) + out.zero
        code = saturate(code, 8).flatten(1, 2)
        if attention.frames:
            positions = out.height * out.width
            code = code.unflatten(0, (-1, positions)).transpose(1, 3).flatten(0, 1)
        return code.unflatten(2, (out.height, out.width))
