"""Construction of a TensorGraph: streams, the Linears that write them, encodings that read them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np

from signmask.compiler.fusion.value import NO_PADDING, Padding, Reject, Value
from signmask.compiler.graph import (
    AttentionOp,
    CallGraph,
    EncodingOp,
    InputOp,
    LinearOp,
    ProductOp,
    StreamOp,
    TensorOp,
)
from signmask.compiler.layout import Layout
from signmask.compiler.synthetic import absent, is_absent
from signmask.hw.spec.isa import FORMATS

# The largest kernel, stride and padding that an instruction can name, and the largest enlargement.
BITS = {field: bits for field, bits, _ in FORMATS["MATMUL"].fields}
LARGEST = {
    what: 2 ** BITS[field] - 1
    for what, field in (("kernel", "kernel"), ("stride", "step"), ("padding", "padding"))
}
LARGEST_UPSAMPLE = 2


def rows_of(weight: np.ndarray, index: np.ndarray) -> np.ndarray:
    """The output channels `index` of a weight; weights that are absent stay so."""
    if is_absent(weight):
        return absent((len(index), *weight.shape[1:]))
    return np.ascontiguousarray(weight[index])


class GraphBuilder:
    """A TensorGraph in construction. `at` is the call being fused: new nodes are named after it.
    `images` is the number of images that belong together, because attention joins them or because
    constants differ between them, or 1."""

    def __init__(self, calls: CallGraph, steps: int) -> None:
        self.calls, self.steps = calls, steps
        self.graph = nx.DiGraph()
        self.encodings: dict[tuple[Any, ...], str] = {}
        self.at = ""
        self.images = 1

    def add(self, name: str, op: TensorOp) -> str:
        """A new node; the name that it got."""
        unique, number = name, 1
        while unique in self.graph:
            unique, number = f"{name}_{number}", number + 1
        self.graph.add_node(unique, op=op)
        return unique

    def op(self, name: str) -> Any:
        """The operator of a node."""
        return self.graph.nodes[name]["op"]

    def used_once(self) -> bool:
        """Whether a single call uses the result of the present one."""
        return self.at in self.calls.graph and self.calls.graph.out_degree(self.at) == 1

    def encoding(self, value: Value) -> EncodingOp:
        """How the codes of the streams of `value` are made, before enlargement and padding."""
        height, width = value.size
        return EncodingOp(
            value.streams, value.channels, height, width, value.norm, value.activation, value.affine
        )

    def encoded(self, value: Value, name: str) -> str:
        """The encoding (or source) that holds the codes of `value` before enlargement and padding;
        a new one is named after `name`."""
        if value.source:
            return value.source
        key = (value.streams, value.norm, value.activation, value.affine)
        if key not in self.encodings:
            self.encodings[key] = self.add(f"{name}.codes", self.encoding(value))
        return self.encodings[key]

    def linear(
        self, value: Value, weight: np.ndarray, bias: np.ndarray | None, layout: Layout,
        stride: int = 1, padding: int = 0, groups: int = 1, name: str = "",
    ) -> Value:  # fmt: skip
        """A Linear on the codes of `value` and the stream it writes, of the given layout, both
        named after `name` or the call. Raises Reject where the padding differs in the two
        directions by unequal amounts, or an instruction cannot name the sizes."""
        name = name or self.at
        channels = weight.shape[0]
        offset = np.zeros(channels) if bias is None else bias.astype(np.float64)
        table = np.repeat(offset[None, None], self.steps, axis=0)
        source = self.encoded(value, name)
        weight, padding = _embedded(weight, value.padding, padding)
        check_sizes(kernel=weight.shape[2], stride=stride, padding=padding)
        op = LinearOp(source, "", weight, stride, padding, value.upsample, groups=groups)
        linear = self.add(f"{name}.linear", op)
        sizes = layout.sizes
        stream = self.add(name, StreamOp(channels, sizes["h"], sizes["w"], table, linears=[linear]))
        self.op(linear).out = stream
        return Value(layout, streams=(stream,), exclusive=self.used_once())

    def per_channel(self, value: Value, filters: np.ndarray) -> tuple[np.ndarray, int]:
        """(weight, groups) of the operator that filters each channel of `value` by its own equal
        part of `filters` (out, kernel, kernel)."""
        filters = filters.astype(np.float32)[:, None]
        if value.source and isinstance(self.op(value.source), (InputOp, AttentionOp)):
            # An input that only ungrouped operators read is sent with more precision, and the heads
            # that an attention writes may need padding.
            return _dense(filters, value.channels), 1
        return filters, value.channels

    def identity(self, value: Value, gain: float | np.ndarray = 1.0, name: str = "") -> Value:
        """`gain * value` as a stream of its own, through codes and an identity operator; `gain`
        is a number or (channels,)."""
        gains = np.broadcast_to(np.asarray(gain, np.float32), value.channels)
        weight, groups = self.per_channel(value, gains[:, None, None])
        return self.linear(value, weight, None, value.layout, groups=groups, name=name)

    def as_stream(self, value: Value, gain: float | np.ndarray = 1.0) -> Value:
        """`gain * value` as one raw tensor, through an identity operator where needed; `gain` is a
        number or (channels,)."""
        if value.is_stream and np.all(gain == 1.0):
            return value
        if value.is_stream and value.exclusive and not self.op(value.streams[0]).adds:
            stream = self.op(value.streams[0])
            stream.table = stream.table * gain
            if stream.offset is not None:
                stream.offset = stream.offset * gain
            gains = np.asarray(gain, np.float32).reshape(-1, 1, 1, 1)
            for linear in map(self.op, stream.linears):
                if not is_absent(linear.weight):
                    linear.weight = linear.weight * gains
            return value
        return replace(self.identity(value, gain), exclusive=True)

    def own_stream(self, value: Value, shared: bool) -> Value:
        """`value` as a stream without addends that has one reader; `shared` if the present call
        reads it more than once."""
        alone = value.is_stream and value.exclusive and not shared
        if not alone or self.op(value.streams[0]).adds:
            own = self.identity(value, name=f"{self.at}.operand")
            value = replace(own, exclusive=True)
        for linear in map(self.op, self.op(value.streams[0]).linears):
            if linear.groups > 1:  # heads may need padding
                linear.weight, linear.groups = _dense(linear.weight, linear.groups), 1
        return value

    def with_constants(self, value: Value, table: np.ndarray, offset: np.ndarray | None) -> Value:
        """The stream `value` plus a `table` and an `offset` as StreamOp has them."""
        stream = self.op(value.streams[0])
        if value.exclusive:
            stream.table = stream.table + table
            stream.offset = _plus(stream.offset, offset)
            return replace(value, exclusive=self.used_once())
        added = StreamOp(
            stream.channels, stream.height, stream.width, table, [value.streams[0]], offset=offset
        )
        return replace(value, streams=(self.add(self.at, added),), exclusive=self.used_once())

    def sum(self, a: Value, b: Value, sign: float) -> Value:
        """a + sign * b; Linears of exclusive operands write the sum itself. Raises Reject."""
        if a.layout.dims != b.layout.dims or a.layout.shape != b.layout.shape:
            raise Reject("its operands differ in shape", "add tensors of equal shape")
        if a == b:
            twice = self.as_stream(a, 1.0 + sign)
            return replace(twice, exclusive=twice.exclusive and self.used_once())
        a, b = self.as_stream(a), self.as_stream(b, sign)
        base = self.op(a.streams[0])
        table = np.zeros((self.steps, 1, base.channels))
        joined = StreamOp(base.channels, base.height, base.width, table)
        name = self.add(self.at, joined)
        for value in (a, b):
            old = value.streams[0]
            if not value.exclusive:
                self._add_stream(joined, name, replace(a, streams=(old,)))
                continue
            stream = self.op(old)
            joined.table = joined.table + stream.table
            joined.offset = _plus(joined.offset, stream.offset)
            for addend in stream.adds:
                self._add_stream(joined, name, replace(a, streams=(addend,)))
            self._take_linears(joined, name, old)
        return Value(a.layout, streams=(name,), exclusive=self.used_once())

    def _add_stream(self, joined: StreamOp, name: str, value: Value) -> None:
        """Let the stream `joined` add another; through an identity if it does already."""
        if value.streams[0] in joined.adds:
            self._take_linears(joined, name, self.identity(value).streams[0])
        else:
            joined.adds.append(value.streams[0])

    def _take_linears(self, joined: StreamOp, name: str, old: str) -> None:
        """Let the operators that write the stream `old` write `joined` in its place."""
        linears = self.op(old).linears
        joined.linears += linears
        for linear in linears:
            self.op(linear).out = name
        self.graph.remove_node(old)

    def output(self, value: Value, order: np.ndarray) -> str:
        """The Linear whose accumulators are the output: channels `order` of `value`."""
        stream = self.op(value.streams[0]) if value.is_stream else None
        used = stream is not None and any(
            value.streams[0] in (*getattr(op, "streams", ()), *getattr(op, "adds", ()))
            for op in map(self.op, self.graph)
        )
        fits = stream is not None and not stream.adds and len(stream.linears) == 1
        varies = stream is not None and (stream.offset is not None or stream.table.shape[1] > 1)
        if stream is None or used or not fits or varies:
            value = self.identity(value)
            stream = self.op(value.streams[0])
        name: str = stream.linears[0]
        linear: LinearOp = self.op(name)
        linear.out, linear.table = "", stream.table[:, 0]
        self.graph.remove_node(value.streams[0])
        if (order != np.arange(len(order))).any():
            if linear.groups > 1:
                linear.weight, linear.groups = _dense(linear.weight, linear.groups), 1
            linear.weight = rows_of(linear.weight, order)
            linear.table = linear.table[:, order]
        return name

    def connect(self, output: str) -> None:
        """Draw the edges, from what every operator reads; drop what the output does not need."""
        for name in list(self.graph):
            for source in _sources(self.op(name)):
                self.graph.add_edge(source, name)
        needed = nx.ancestors(self.graph, output) | {output}
        self.graph.remove_nodes_from([n for n in self.graph if n not in needed])


def check_sizes(**sizes: int) -> None:
    """Raise Reject for a kernel, stride or padding that no instruction can name."""
    for what, size in sizes.items():
        if size > LARGEST[what]:
            raise Reject(
                f"its {what} is {size}, padding on unequal sides included, and the accelerator's "
                f"largest is {LARGEST[what]}",
                f"use a {what} of at most {LARGEST[what]}",
            )


def _sources(op: TensorOp) -> list[str]:
    if isinstance(op, StreamOp):
        return [*op.linears, *op.adds]
    if isinstance(op, (EncodingOp, AttentionOp)):
        return list(op.streams)
    if isinstance(op, LinearOp):
        return [op.source]
    if isinstance(op, ProductOp):
        return [op.a, op.b]
    return []


def _plus(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    """Sum of two offsets, None standing for zero."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def _embedded(weight: np.ndarray, before: Padding, padding: int) -> tuple[np.ndarray, int]:
    """The kernel and its padding on all sides, once padding that differs from side to side is
    expressed by rows and columns of zeros in a larger kernel."""
    left, right, top, bottom = (side + padding for side in before)
    if before == NO_PADDING or left == right == top == bottom:
        return weight, left
    if abs(left - right) != abs(top - bottom) or max(left, right) != max(top, bottom):
        raise Reject(
            f"padding {before} (left, right, top, bottom) differs in the two directions",
            "pad both directions alike",
        )
    widest, more = max(left, right), abs(left - right)
    rows, columns = widest - top, widest - left
    kernel = weight.shape[2]
    shape = (*weight.shape[:2], kernel + more, kernel + more)
    if is_absent(weight):
        return absent(shape), widest
    embedded = np.zeros(shape, np.float32)
    embedded[:, :, rows : rows + kernel, columns : columns + kernel] = weight
    return embedded, widest


def _dense(weight: np.ndarray, groups: int) -> np.ndarray:
    """A grouped weight as (out, in, kernel, kernel)."""
    out, narrow, height, width = weight.shape
    if is_absent(weight):
        return absent((out, narrow * groups, height, width))
    dense = np.zeros((out, narrow * groups, height, width), np.float32)
    for group in range(groups):
        rows = slice(group * out // groups, (group + 1) * out // groups)
        dense[rows, group * narrow : (group + 1) * narrow] = weight[rows]
    return dense
