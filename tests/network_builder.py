"""A builder of random networks, legal in every detail, with scales at which little saturates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from signmask.hw.spec.network import (
    Attention,
    CodeSource,
    Encoding,
    Knobs,
    Linear,
    Network,
    Norm,
    Product,
    Stream,
    TokenNorm,
)

CODE_DEVIATION = 40  # typical standard deviation of codes
Z_FRACTION = 12  # fraction bits of a normalised z
Z_SHIFT = 12  # further fraction bits of A and B
CODE_SHIFT = 20
ACTIVATION_UNIT = 5 / 255  # real value of a code behind an activation
MULTIPLIER_BITS = 14

Built = tuple[Network, dict[str, np.ndarray]]


class NetworkBuilder:
    """Adds operators in execution order; a stream must be added before what writes it."""

    def __init__(self, name: str, seed: int, steps: int, knobs: Knobs) -> None:
        self.rng = np.random.default_rng(seed)
        self.name, self.steps, self.knobs = name, steps, knobs
        self.tensors: dict[str, np.ndarray] = {}
        self.streams: dict[str, Stream] = {}
        self.encodings: dict[str, Encoding] = {}
        self.sources: dict[str, CodeSource] = {}
        self.linears: dict[str, Linear] = {}
        self.attentions: dict[str, Attention] = {}
        self.products: dict[str, Product] = {}
        self.order: list[str] = []
        self.images = 1
        self.deviation = CODE_DEVIATION << knobs.grid_bits  # of a stream, in grid steps

    def _put(self, name: str, values: object, dtype: type = np.int64) -> str:
        array = np.asarray(values)
        if np.issubdtype(dtype, np.integer):
            array = np.rint(array)
        self.tensors[name] = array.astype(dtype)
        return name

    def source(self, name: str, channels: int, height: int, width: int, zero: int = 0) -> str:
        mode = "dense" if self.knobs.dataflow == "dense" else "restore"
        self.sources[name] = CodeSource(
            name, channels, height, width, 1 / CODE_DEVIATION, zero, mode, "no stream behind it"
        )
        return name

    def stream(
        self, name: str, channels: int, height: int, width: int, adds: tuple[str, ...] = (),
        bits: int = 16, offset: int = 0, own: bool = False,
    ) -> str:  # fmt: skip
        """`offset`: rows of a constant that varies over positions, and is part of it. `own`: images
        have tables of their own."""
        bias = self.rng.normal(0, 0.2, channels)
        rows = (self.images, channels) if own else (channels,)
        walk = np.cumsum(self.rng.normal(0, 0.03, (self.steps, *rows)), 0)
        table = self._put(f"{name}.table", (bias + walk) * self.deviation, np.int32)
        delta_bits = 3 + self.knobs.grid_bits
        self.streams[name] = Stream(
            name, channels, height, width, 1 / self.deviation, table, adds, bits, delta_bits
        )
        if offset:
            values = self.rng.normal(0, 0.5 * self.deviation, (offset, height * width, channels))
            key = self._put(f"{name}.offset", values, np.int32)
            self.streams[name] = replace(self.streams[name], offset=key)
        return name

    def linear(
        self, name: str, source: str, out: str = "", channels: int = 0, kernel: int = 3,
        stride: int = 1, padding: int | None = None, upsample: int = 1, groups: int = 1,
    ) -> str:  # fmt: skip
        given = self.encodings.get(source) or self.sources[source]
        padding = kernel // 2 if padding is None else padding
        if out:
            stream = self.streams[out]
            channels, height, width = stream.channels, stream.height, stream.width
        else:
            height, width = given.height, given.width
        inputs = given.channels // groups
        taps = kernel * kernel * inputs
        weight = self.rng.normal(0, 30, (channels, kernel, kernel, inputs))
        weight = np.clip(np.rint(weight), -127, 127)
        self._put(f"{name}.weight", weight, np.int8)
        folded = given.zero * weight.sum((1, 2, 3))
        multiplier, shift = "", 0
        if out:
            ratio = self.deviation / (30 * CODE_DEVIATION * taps**0.5)
            shift = MULTIPLIER_BITS - int(np.ceil(np.log2(ratio)))
            values = np.rint(ratio * 2.0**shift * self.rng.uniform(0.5, 1, channels))
            multiplier = self._put(f"{name}.multiplier", values)
            table = self.tensors[self.streams[out].table]
            table -= np.rint(folded * values / 2.0**shift).astype(np.int32)
        else:
            scale = np.full(channels, 1 / (30 * CODE_DEVIATION * taps**0.5))
            self._put("output_scale", scale, np.float64)
            self._put("output_table", np.tile(-folded * scale, (self.steps, 1)), np.float64)
        self.linears[name] = Linear(
            name, source, out, f"{name}.weight", multiplier, shift, kernel, stride, padding,
            upsample, channels, height, width, height * width * channels * taps, groups,
        )  # fmt: skip
        self.order.append(name)
        return name

    def encoding(
        self, name: str, streams: tuple[str, ...], groups: int = 0, activation: str = "",
        stat_shift: int = 0, token: Literal["", "layer", "rms"] = "", changing: bool = False,
        factor: bool = False, own: bool = False,
    ) -> str:  # fmt: skip
        """`groups` 0: no norm. `activation`: "" (one segment), "relu" or "silu". `token`: a norm of
        each position. `changing`: scale and bias, or gain and offset, have a row for each step.
        `factor`: of a product. `own`: images have scales and biases of their own."""
        first = self.streams[streams[0]]
        channels = sum(self.streams[s].channels for s in streams)
        norm, token_norm, z_unit, gain = None, None, self.deviation, 2.0**Z_SHIFT
        rows = (self.steps, channels) if changing else (channels,)
        rows = (self.steps, self.images, channels) if own else rows
        if groups:
            norm = self._norm(name, first, channels, groups, stat_shift, rows)
            z_unit = 1 << Z_FRACTION
        else:
            if token:
                z_unit = 1 << Z_FRACTION
                epsilon = round(1e-5 * (channels * self.deviation) ** 2 / 4**stat_shift)
                shift = 54 + stat_shift - 20
                token_norm = TokenNorm(
                    channels, max(1, epsilon), stat_shift, shift, centred=token == "layer"
                )
                gain *= z_unit * channels / 2.0**20
            self._put(f"{name}.a", gain * self.rng.uniform(0.9, 1.1, rows))
            self._put(f"{name}.b", 2.0**Z_SHIFT * self.rng.normal(0, z_unit / 20, rows))
        unit = ACTIVATION_UNIT if activation else 1 / CODE_DEVIATION
        zero = -100 if activation else int(self.rng.integers(-6, 6))
        breaks, slopes, intercepts = _segments(activation, self.knobs.mask_bits)
        self._put(f"{name}.breaks", breaks * z_unit)
        self._put(f"{name}.slopes", slopes / unit / z_unit * 2.0**CODE_SHIFT)
        self._put(f"{name}.intercepts", (intercepts / unit + zero) * 2.0**CODE_SHIFT)
        self.encodings[name] = Encoding(
            name, streams, channels, first.height, first.width, unit, zero, Z_SHIFT, CODE_SHIFT,
            f"{name}.breaks", f"{name}.slopes", f"{name}.intercepts", norm,
            "" if groups else f"{name}.a", "" if groups else f"{name}.b",
            mode=self.knobs.dataflow, reason="whole network", token_norm=token_norm,
        )  # fmt: skip
        self.encodings[name] = placed(self.encodings[name], self.knobs, factor, self.tensors)
        self.order.append(name)
        return name

    def _norm(
        self, name: str, first: Stream, channels: int, groups: int, stat_shift: int,
        rows: tuple[int, ...],
    ) -> Norm:  # fmt: skip
        rng, steps, repeat = self.rng, self.steps, channels // groups
        count = repeat * first.height * first.width
        gamma, beta = rng.uniform(0.7, 1.3, rows), rng.normal(0, 0.2, rows)
        gain_fraction, unit = 12, 2.0 ** (Z_FRACTION + Z_SHIFT)
        spread = np.exp(np.cumsum(rng.normal(0, 0.03, (steps, groups)), 0))
        mean = np.cumsum(rng.normal(0, self.deviation / 50, (steps, groups)), 0)
        a = gamma / (self.deviation * np.repeat(spread, repeat, 1)) * unit
        return Norm(
            groups, count, max(1, round(1e-5 * (count * self.deviation) ** 2 / 4**stat_shift)),
            gain_fraction + 46 - Z_FRACTION - Z_SHIFT + stat_shift, 8 - stat_shift, stat_shift,
            gain=self._put(f"{name}.gain", gamma * count * 2.0**gain_fraction),
            offset=self._put(f"{name}.offset", beta * unit),
            cal_mean=self._put(f"{name}.cal_mean", mean * 2.0 ** (8 - stat_shift)),
            cal_inverse=self._put(f"{name}.cal_inverse", 2**14 / spread),
            cal_sigma=self._put(f"{name}.cal_sigma", 2**14 * spread),
            cal_a=self._put(f"{name}.cal_a", a),
            cal_b=self._put(f"{name}.cal_b", beta * unit - a * np.repeat(mean, repeat, 1)),
        )  # fmt: skip

    def product(self, name: str, a: str, b: str, out: str) -> str:
        """`out` becomes a code source shaped like the encoding a."""
        encoding = self.encodings[a]
        self.source(out, encoding.channels, encoding.height, encoding.width, zero=-2)
        self.products[name] = Product(name, a, b, out, 9000, 19)
        self.order.append(name)
        return out

    def attention(
        self, name: str, q: str, k: str, v: str, out: str, heads: int, rows: int = 0,
        tokens: int = 0, frames: int = 0,
    ) -> str:  # fmt: skip
        """`out` becomes a code source shaped like the stream q. With `rows`, keys and values are
        constants of that many images and `tokens` tokens; with `frames`, attention is over them."""
        stream = self.streams[q]
        self.source(out, stream.channels, stream.height, stream.width, zero=3)
        shift = 12 + self.knobs.grid_bits
        dimension = (stream.channels // heads) ** 0.5
        self.attentions[name] = Attention(
            name, q, k, v, out, heads, 4096, shift, 4000, shift, 4200, shift,
            round(46 / (dimension * CODE_DEVIATION**2) * 2**20), 20, 12000, 13 + 15,
        )  # fmt: skip
        if frames:
            self.images = frames
            self.attentions[name] = replace(self.attentions[name], frames=frames)
        if rows:
            shape = (rows, tokens, stream.channels)
            keys, values = (
                self._put(
                    f"{name}.{key}", np.clip(self.rng.normal(0, 40, shape), -127, 127), np.int8
                )
                for key in ("keys", "values")
            )
            item = replace(self.attentions[name], k="", v="", keys=keys, values=values)
            self.attentions[name] = item
        self.order.append(name)
        return out

    def build(self) -> Built:
        network = Network(
            self.name, self.steps, tuple(range(10 * self.steps, 0, -10)), next(iter(self.sources)),
            "output_scale", "output_table", tuple(self.order), self.knobs, self.streams,
            self.encodings, self.sources, self.linears, self.attentions, self.products,
            images=self.images,
        )  # fmt: skip
        return network, self.tensors


def placed(
    encoding: Encoding, knobs: Knobs, factor: bool, tensors: Mapping[str, np.ndarray]
) -> Encoding:
    """The encoding in the mode that the dataflow, and what it does, leave."""
    flow = knobs.dataflow
    changing = encoding.affine_a and tensors[encoding.affine_a].ndim > 1
    if flow == "mask" and (encoding.token_norm or changing):
        flow = "restore"
    return replace(encoding, mode="dense" if factor else flow)


def _segments(activation: str, mask_bits: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Breaks, slopes and intercepts of the activation in real units."""
    if not activation:
        return np.zeros(0), np.ones(1), np.zeros(1)
    count = 1 << mask_bits
    breaks = np.linspace(-3, 3, count - 1) if count > 2 else np.zeros(1)
    knots = np.concatenate([[-8.0], breaks, [8.0]])
    values = np.maximum(knots, 0) if activation == "relu" else knots / (1 + np.exp(-knots))
    slopes = np.diff(values) / np.diff(knots)
    return breaks, slopes, values[:-1] - slopes * knots[:-1]
