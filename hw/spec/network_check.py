"""Checks of a network that was read from a file: types, names, sizes and tensors agree.

Every failure is a ValueError whose message is a clause that names the place and the contradiction;
the reader of the file adds the file's name and the remedy.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import fields, is_dataclass
from math import isfinite
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from signmask.hw.spec.network import (
    Attention,
    CodeSource,
    Encoding,
    Linear,
    Network,
    Product,
    Stream,
)

SIZES = frozenset(
    "channels height width steps group full_lanes groups count epsilon heads kernel stride "
    "upsample out_channels out_height out_width spread bits patch images".split()
)  # at least 1
LARGEST_SIZE = 1 << 48
LARGEST_SHIFT = 63
INTEGER, FLOAT = "iu", "f"


def require(condition: object, place: str, problem: str) -> None:
    """Raise ValueError unless the condition holds."""
    if not condition:
        raise ValueError(f"{place}: {problem}")


def check_network(network: Network, tensors: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError where fields have other types than stated, names point nowhere, operators
    are read before they are executed, or a tensor is absent, misshaped or not finite."""
    check_fields(network, "network")
    _check_names(network)
    check_order(network)
    _Tensors(network, tensors).check()


def check_fields(value: Any, place: str) -> None:
    """Raise ValueError for a field of a dataclass whose value is not of its annotated type."""
    hints = get_type_hints(type(value))
    for item in fields(value):
        found = getattr(value, item.name)
        where = f"{place}.{item.name}"
        _check_type(found, hints[item.name], where)
        if item.name in SIZES:
            require(1 <= found < LARGEST_SIZE, where, f"{found} is no size")
        if item.name.endswith("shift") and item.name != "mean_shift":
            require(0 <= found <= LARGEST_SHIFT, where, f"{found} is outside 0..{LARGEST_SHIFT}")
        if item.name == "scale":
            require(found > 0, where, f"{found} is not positive")


def _check_type(value: Any, hint: Any, place: str) -> None:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return
    if origin is UnionType:
        if value is not None:
            _check_type(value, arguments[0], place)
    elif origin is Literal:
        require(value in arguments, place, f"{value!r} is none of {', '.join(arguments)}")
    elif origin is tuple:
        require(isinstance(value, tuple), place, "is no list")
        for i, item in enumerate(value):
            _check_type(item, arguments[0], f"{place}[{i}]")
    elif origin is dict:
        require(isinstance(value, dict), place, "is no table")
        for key, item in value.items():
            _check_type(item, arguments[1], f"{place}['{key}']")
    elif isinstance(hint, type) and is_dataclass(hint):
        require(isinstance(value, hint), place, "is no record")
        check_fields(value, place)
    elif hint is float:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        require(number and isfinite(value), place, f"{value!r} is no finite number")
    elif hint is int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        require(whole, place, f"{value!r} is no whole number")
    else:
        require(isinstance(value, hint), place, f"{value!r} is no {hint.__name__}")


def _check_names(network: Network) -> None:
    """Every name resolves, and records agree on shapes."""
    require(len(network.timesteps) == network.steps, "network.timesteps", "not one for each step")
    require(network.input in network.sources, "network.input", f"no source '{network.input}'")
    for kind in ("streams", "encodings", "sources", "linears", "attentions", "products"):
        for name, record in getattr(network, kind).items():
            require(record.name == name, f"{kind}['{name}']", f"is named '{record.name}'")
    for stream in network.streams.values():
        _check_stream(network, stream)
    for encoding in network.encodings.values():
        _check_encoding(network, encoding)
    multiplied = network.multiplied()
    for linear in network.linears.values():
        _check_linear(network, linear, multiplied)
    outputs = [linear for linear in network.linears.values() if not linear.out]
    require(len(outputs) == 1, "network.linears", f"{len(outputs)} output operators instead of 1")
    _check_sample(network, outputs[0])
    for attention in network.attentions.values():
        _check_attention(network, attention)
    for product in network.products.values():
        _check_product(network, product)


def _check_stream(network: Network, stream: Stream) -> None:
    """Its addends exist, of its own size."""
    streams, place = network.streams, f"stream '{stream.name}'"
    for other in stream.adds:
        require(other in streams, place, f"adds unknown stream '{other}'")
        fits = _positions(streams[other]) == _positions(stream)
        fits = fits and streams[other].channels == stream.channels
        require(fits, place, f"adds stream '{other}' of another size")


def _check_encoding(network: Network, encoding: Encoding) -> None:
    """Its streams make up its channels, and its norm divides them."""
    streams, place = network.streams, f"encoding '{encoding.name}'"
    for other in encoding.streams:
        require(other in streams, place, f"reads unknown stream '{other}'")
        fits = _positions(streams[other]) == _positions(encoding)
        require(fits, place, f"stream '{other}' has another size")
    require(encoding.streams, place, "reads no stream")
    total = sum(streams[other].channels for other in encoding.streams)
    require(total == encoding.channels, place, f"{encoding.channels} channels of {total}")
    if encoding.norm:
        groups = encoding.norm.groups
        require(encoding.channels % groups == 0, place, f"{groups} groups do not divide it")
    if encoding.token_norm:
        count = encoding.token_norm.count
        require(len(encoding.streams) == 1, place, "normalises tokens of several streams")
        require(count == encoding.channels, place, f"its tokens have {count} channels")
        require(encoding.norm is None, place, "has two norms")
        require(encoding.mode != "mask", place, "normalises tokens in a mask")


def _check_linear(network: Network, linear: Linear, multiplied: Container[str]) -> None:
    """It reads an operand that is no factor of a product (`multiplied`) and fits its stream."""
    place = f"linear '{linear.name}'"
    known = linear.source in network.encodings or linear.source in network.sources
    require(known, place, f"reads unknown operand '{linear.source}'")
    factor = linear.source in multiplied
    require(not factor, place, f"reads '{linear.source}', the factor of a product")
    for channels in (linear.out_channels, network.shape_of(linear.source).channels):
        divides = channels % linear.groups == 0
        require(divides, place, f"{linear.groups} groups do not divide {channels} channels")
    if linear.out:
        require(linear.out in network.streams, place, f"writes unknown stream '{linear.out}'")
        out = network.streams[linear.out]
        fits = linear.out_height * linear.out_width == _positions(out)
        fits = fits and linear.out_channels == out.channels
        require(fits, place, f"its result does not fit stream '{linear.out}'")


def _check_attention(network: Network, attention: Attention) -> None:
    """Its operands and its result exist; heads and frames divide them."""
    place = f"attention '{attention.name}'"
    require(attention.out in network.sources, place, f"writes unknown source '{attention.out}'")
    for part in attention.streams:
        require(part in network.streams, place, f"reads unknown stream '{part}'")
    both = bool(attention.keys) == bool(attention.values)
    require(both, place, "has either constant keys or constant values")
    joined = attention.frames in (0, network.images) and not (attention.frames and attention.keys)
    require(joined, place, f"joins {attention.frames} images of {network.images}")
    width = network.sources[attention.out].channels
    require(width % attention.heads == 0, place, f"{attention.heads} heads do not divide it")


def _check_product(network: Network, product: Product) -> None:
    """Its factors are dense encodings of its result's size."""
    place = f"product '{product.name}'"
    require(product.out in network.sources, place, f"writes unknown source '{product.out}'")
    out = network.sources[product.out]
    for part in (product.a, product.b):
        require(part in network.encodings, place, f"reads unknown encoding '{part}'")
        factor = network.encodings[part]
        same = factor.channels == out.channels and _positions(factor) == _positions(out)
        require(same, place, f"'{part}' differs from its result in size")
        mode = factor.mode
        require(mode == "dense", f"encoding '{part}'", f"is a factor with mode {mode}")


def _check_sample(network: Network, output: Linear) -> None:
    """What the network predicts holds the shape of its input."""
    source, place, patch = network.sources[network.input], f"linear '{output.name}'", network.patch
    require(source.channels % source.spread == 0, f"source '{source.name}'", "spread unevenly")
    channels = output.out_channels // patch**2
    positions = output.out_height * output.out_width * patch**2
    enough = channels >= source.real_channels and positions == _positions(source)
    found = output.out_channels, output.out_height, output.out_width
    needed = source.real_channels, source.height, source.width
    require(enough, place, f"its result of shape {found} is no sample of {needed}")


def _positions(record: Stream | Encoding | CodeSource) -> int:
    """Pixels or tokens of one image."""
    return record.height * record.width


def check_order(network: Network) -> None:
    """Raise ValueError unless `order` names every operator once, each behind what it reads, and no
    sum has a cycle."""
    operators = [*network.encodings, *network.linears, *network.attentions, *network.products]
    ordered = sorted(operators) == sorted(network.order)
    require(ordered, "network.order", "does not name every operator once")
    done = {network.input}
    for name in network.order:
        if name in network.linears:
            needed = {network.linears[name].source}
        elif name in network.encodings:
            needed = _writers(network, network.encodings[name].streams)
        elif name in network.products:
            product = network.products[name]
            needed = {product.a, product.b}
            done.add(product.out)
        else:
            attention = network.attentions[name]
            needed = _writers(network, attention.streams)
            done.add(attention.out)
        require(needed <= done, f"operator '{name}'", f"runs before {sorted(needed - done)}")
        done.add(name)


def _writers(network: Network, names: tuple[str, ...]) -> set[str]:
    """Linears that the streams and their addends wait for; raises ValueError for a cycle."""
    found: set[str] = set()
    waiting, finished = [(name, frozenset[str]()) for name in names], set()
    while waiting:
        name, above = waiting.pop()
        require(name not in above, f"stream '{name}'", "adds itself")
        if name in finished:
            continue
        finished.add(name)
        found |= {n for n, linear in network.linears.items() if linear.out == name}
        waiting += [(other, above | {name}) for other in network.streams[name].adds]
    return found


class _Tensors:
    """The tensors that a network names, against the shapes that it needs."""

    def __init__(self, network: Network, tensors: Mapping[str, np.ndarray]) -> None:
        self.network, self.tensors = network, tensors

    def check(self) -> None:
        """Raise ValueError for the first tensor that does not fit."""
        network = self.network
        for stream in network.streams.values():
            self._rows(stream.table, stream.channels, least=2)
            if stream.offset:
                rows = self._need(stream.offset, INTEGER, -1, _positions(stream), stream.channels)
                place = f"tensor '{stream.offset}'"
                require(len(rows) in (1, network.images), place, f"has {len(rows)} rows")
        for encoding in network.encodings.values():
            self._encoding(encoding)
        for linear in network.linears.values():
            self._linear(linear)
        for attention in network.attentions.values():
            if attention.keys:
                width = network.sources[attention.out].channels
                keys = self._need(attention.keys, INTEGER, -1, -1, width)
                self._need(attention.values, INTEGER, *keys.shape)

    def _need(self, name: str, kinds: str, *shape: int) -> np.ndarray:
        """The tensor of that name; a size of -1 accepts any length."""
        place = f"tensor '{name}'"
        require(name in self.tensors, place, "is missing")
        value = self.tensors[name]
        require(value.dtype.kind in kinds, place, f"has type {value.dtype}")
        fits = len(value.shape) == len(shape) and all(
            want in (size, -1) for size, want in zip(value.shape, shape, strict=True)
        )
        require(fits, place, f"has shape {value.shape} where {shape} is needed")
        require(kinds == INTEGER or np.isfinite(value).all(), place, "holds NaN or infinity")
        return value

    def _encoding(self, encoding: Encoding) -> None:
        segments = len(self._need(encoding.slopes, INTEGER, -1))
        require(1 <= segments <= 8, f"encoding '{encoding.name}'", f"has {segments} segments")
        self._need(encoding.intercepts, INTEGER, segments)
        breaks = self._need(encoding.breaks, INTEGER, segments - 1)
        ascending = (np.diff(breaks) >= 0).all()
        require(ascending, f"tensor '{encoding.breaks}'", "does not ascend")
        norm, steps, channels = encoding.norm, self.network.steps, encoding.channels
        if norm is None:
            for name in (encoding.affine_a, encoding.affine_b):
                fixed = self._rows(name, channels).ndim == 1 or encoding.mode != "mask"
                require(fixed, f"tensor '{name}'", "changes with step or image in a mask")
            return
        for name in (norm.gain, norm.offset):
            self._rows(name, channels, most=2)
        for name in (norm.cal_mean, norm.cal_inverse, norm.cal_sigma):
            self._need(name, INTEGER, steps, norm.groups)
        for name in (norm.cal_a, norm.cal_b):
            self._need(name, INTEGER, steps, channels)

    def _rows(self, name: str, channels: int, least: int = 1, most: int = 3) -> np.ndarray:
        """A tensor (steps, images, channels) of `least` to `most` dimensions: without the images
        where they are alike, without the steps too where those are."""
        shape = (self.network.steps, self.network.images, channels)
        given = self.tensors[name].ndim if name in self.tensors else least
        needed = {1: shape[2:], 2: (shape[0], channels), 3: shape}
        return self._need(name, INTEGER, *needed[min(max(given, least), most)])

    def _linear(self, linear: Linear) -> None:
        network, out = self.network, linear.out_channels
        given = network.shape_of(linear.source).channels
        if network.info.get("weights") != "none":
            shape = (out, linear.kernel, linear.kernel, given // linear.groups)
            self._need(linear.weight, INTEGER, *shape)
        if linear.out:
            self._need(linear.multiplier, INTEGER, out)
        else:
            self._need(network.output_scale, FLOAT, out)
            self._need(network.output_table, FLOAT, network.steps, out)
