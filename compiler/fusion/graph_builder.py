"""Construction of a TensorGraph: streams, the Linears that write them, encodings that read them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np

from signmask.compiler.fusion.value import Reject, Value
from signmask.compiler.graph import (
    AttentionOp,
    CallGraph,
    EncodingOp,
    LinearOp,
    StreamOp,
    TensorOp,
)
from signmask.compiler.layout import Layout


class GraphBuilder:
    """A TensorGraph in construction. `at` is the call being fused: new nodes are named after it."""

    def __init__(self, calls: CallGraph, steps: int) -> None:
        self.calls, self.steps = calls, steps
        self.graph = nx.DiGraph()
        self.encodings: dict[tuple[Any, ...], str] = {}
        self.at = ""

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

    def encoded(self, value: Value, name: str) -> str:
        """The encoding (or source) that holds the codes of `value` before enlargement; a new one
        is named after `name`."""
        if value.source:
            return value.source
        key = (value.streams, id(value.norm) if value.norm else None, value.activation)
        if key not in self.encodings:
            height, width = value.size
            op = EncodingOp(
                value.streams, value.layout.sizes["c"], height, width, value.norm, value.activation
            )
            self.encodings[key] = self.add(f"{name}.codes", op)
        return self.encodings[key]

    def linear(
        self, value: Value, weight: np.ndarray, bias: np.ndarray | None, layout: Layout,
        stride: int = 1, padding: int = 0, name: str = "",
    ) -> Value:  # fmt: skip
        """A Linear on the codes of `value` and the stream it writes, of the given layout, both
        named after `name` or the call."""
        name = name or self.at
        channels = weight.shape[0]
        offset = np.zeros(channels) if bias is None else bias.astype(np.float64)
        table = np.repeat(offset[None], self.steps, axis=0)
        source = self.encoded(value, name)
        linear = self.add(
            f"{name}.linear", LinearOp(source, "", weight, stride, padding, value.upsample)
        )
        sizes = layout.sizes
        stream = self.add(name, StreamOp(channels, sizes["h"], sizes["w"], table, linears=[linear]))
        self.op(linear).out = stream
        return Value(layout, streams=(stream,), exclusive=self.used_once())

    def identity(self, value: Value, gain: float = 1.0, name: str = "") -> Value:
        """`gain * value` as a stream of its own, through codes and an identity operator."""
        channels = value.layout.sizes["c"]
        weight = (np.eye(channels, dtype=np.float32) * np.float32(gain))[:, :, None, None]
        return self.linear(value, weight, None, value.layout, name=name)

    def as_stream(self, value: Value, gain: float = 1.0) -> Value:
        """`gain * value` as one raw tensor, through an identity operator where needed."""
        if value.is_stream and gain == 1.0:
            return value
        if value.is_stream and value.exclusive and not self.op(value.streams[0]).adds:
            stream = self.op(value.streams[0])
            stream.table = stream.table * gain
            for name in stream.linears:
                self.op(name).weight = self.op(name).weight * np.float32(gain)
            return value
        return replace(self.identity(value, gain), exclusive=True)

    def own_stream(self, value: Value, shared: bool) -> Value:
        """`value` as a stream without addends that has one reader; `shared` if the present call
        reads it more than once."""
        alone = value.is_stream and value.exclusive and not shared
        if alone and not self.op(value.streams[0]).adds:
            return value
        return replace(self.identity(value, name=f"{self.at}.operand"), exclusive=True)

    def with_table(self, value: Value, table: np.ndarray) -> Value:
        """The stream `value` plus a (steps, channels) table."""
        stream = self.op(value.streams[0])
        if value.exclusive:
            stream.table = stream.table + table
            return replace(value, exclusive=self.used_once())
        added = StreamOp(stream.channels, stream.height, stream.width, table, [value.streams[0]])
        return replace(value, streams=(self.add(self.at, added),), exclusive=self.used_once())

    def sum(self, a: Value, b: Value, sign: float) -> Value:
        """a + sign * b; Linears of exclusive operands write the sum itself. Raises Reject."""
        if a.layout.dims != b.layout.dims or a.layout.shape != b.layout.shape:
            raise Reject("its operands differ in shape", "add tensors of equal shape")
        if a == b:
            return replace(self.as_stream(a, 1.0 + sign), exclusive=self.used_once())
        a, b = self.as_stream(a), self.as_stream(b, sign)
        base = self.op(a.streams[0])
        joined = StreamOp(base.channels, base.height, base.width, np.zeros_like(base.table))
        name = self.add(self.at, joined)
        for value in (a, b):
            old = value.streams[0]
            stream = self.op(old)
            if not value.exclusive:
                joined.adds.append(old)
                continue
            joined.table = joined.table + stream.table
            joined.adds += [x for x in stream.adds if x not in joined.adds]
            joined.linears += stream.linears
            for linear in stream.linears:
                self.op(linear).out = name
            self.graph.remove_node(old)
        return Value(a.layout, streams=(name,), exclusive=self.used_once())

    def output(self, value: Value) -> str:
        """The Linear whose accumulators are the network's output `value`."""
        stream = self.op(value.streams[0]) if value.is_stream else None
        used = stream is not None and any(
            value.streams[0] in (*getattr(op, "streams", ()), *getattr(op, "adds", ()))
            or value.streams[0] in (getattr(op, n, "") for n in "qkv")
            for op in map(self.op, self.graph)
        )
        if stream is None or used or stream.adds or len(stream.linears) != 1:
            value = self.identity(value)
            stream = self.op(value.streams[0])
        linear: str = stream.linears[0]
        self.op(linear).out, self.op(linear).table = "", stream.table
        self.graph.remove_node(value.streams[0])
        return linear

    def connect(self) -> None:
        """Draw the edges, from what every operator reads."""
        for name in list(self.graph):
            for source in _sources(self.op(name)):
                self.graph.add_edge(source, name)


def _sources(op: TensorOp) -> list[str]:
    if isinstance(op, StreamOp):
        return [*op.linears, *op.adds]
    if isinstance(op, EncodingOp):
        return list(op.streams)
    if isinstance(op, LinearOp):
        return [op.source]
    if isinstance(op, AttentionOp):
        return [op.q, op.k, op.v]
    return []
