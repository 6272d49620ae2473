"""Pad heads. Needs: a finished Network whose attention operands are streams of their own, without
addends. Guarantees: the channels of every attention head are a multiple of the group, and the
network's output accumulators have not changed (up to overflow "clip", whose groups change). The
added channels are zero in q, k and v, so scores, products and their codes are the same; the Linears
that read the product have zero weights there. `macs` still count the model's own work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from signmask.compiler.errors import CompileError
from signmask.compiler.passes.constants import Tensors
from signmask.compiler.synthetic import is_absent
from signmask.hw.spec.network import Network


@dataclass(frozen=True)
class Places:
    """Where channels lie after padding to `width` channels: int64 `index`."""

    width: int
    index: np.ndarray

    @classmethod
    def of_heads(cls, channels: int, heads: int, group: int) -> Places:
        """Heads one after the other, each at a multiple of the group."""
        narrow = channels // heads
        wide = -(-narrow // group) * group
        index = np.arange(heads)[:, None] * wide + np.arange(narrow)[None]
        return cls(heads * wide, index.reshape(-1))

    def spread(self, array: np.ndarray, axis: int, fill: int = 0) -> np.ndarray:
        """`array` with `fill` between its channels, which lie along `axis`."""
        shape = list(array.shape)
        shape[axis] = self.width
        if is_absent(array):
            return np.broadcast_to(array[(0,) * array.ndim], shape)
        result = np.full(shape, fill, array.dtype)
        np.moveaxis(result, axis, 0)[self.index] = np.moveaxis(array, axis, 0)
        return result


def pad_heads(network: Network, tensors: Tensors) -> Network:
    """The network with heads of legal width; replaces entries of `tensors`."""
    streams, sources = dict(network.streams), dict(network.sources)
    linears = dict(network.linears)
    for attention in network.attentions.values():
        out = sources[attention.out]
        if out.channels // attention.heads % network.knobs.group == 0:
            continue
        places = Places.of_heads(out.channels, attention.heads, network.knobs.group)
        sources[out.name] = replace(out, channels=places.width)
        operands = attention.streams
        for name in (attention.keys, attention.values) if attention.keys else ():
            tensors[name] = places.spread(tensors[name], axis=2)
        for name in operands:
            stream = streams[name]
            for table in filter(None, (stream.table, stream.offset)):
                tensors[table] = places.spread(tensors[table], axis=tensors[table].ndim - 1)
            streams[name] = replace(stream, channels=places.width)
        for name, linear in linears.items():
            grouped = linear.out in operands or linear.source == out.name
            if grouped and linear.groups > 1:
                raise CompileError(
                    f"'{name}' is grouped and stands at attention '{attention.name}', whose heads "
                    f"need padding; use heads of a multiple of {network.knobs.group} channels."
                )
            if linear.out in operands:
                tensors[linear.weight] = places.spread(tensors[linear.weight], axis=0)
                multiplier = tensors[linear.multiplier]
                tensors[linear.multiplier] = places.spread(multiplier, axis=0, fill=1)
                linears[name] = replace(linear, out_channels=places.width)
            if linear.source == out.name:
                tensors[linear.weight] = places.spread(tensors[linear.weight], axis=3)
    return replace(network, streams=streams, sources=sources, linears=linears)
