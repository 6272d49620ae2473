"""Products of two tensors of the sample, as in gated units, and the selection of channels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from signmask.compiler.fusion.encodings import activated, arguments_of
from signmask.compiler.fusion.graph_builder import GraphBuilder, rows_of
from signmask.compiler.fusion.operands import Operands
from signmask.compiler.fusion.value import NO_PADDING, Reject, Value
from signmask.compiler.graph import AffineOp, Call, ProductOp, Ref, StreamOp, refs
from signmask.compiler.layout import Layout

SELECTORS = {"aten.split", "aten.split_with_sizes", "aten.chunk", "aten.slice", "aten.select",
             "aten.unbind", "aten.narrow", "aten.glu"}  # fmt: skip
REGROUPING = {"aten.view", "aten._unsafe_view", "aten.reshape", "aten.unflatten", "aten.flatten",
              "aten.permute", "aten.transpose", "aten.squeeze", "aten.unsqueeze"}  # fmt: skip


def product(builder: GraphBuilder, a: Value, b: Value) -> Value:
    """a * b elementwise, on codes of their own; raises Reject."""
    if a.layout.dims != b.layout.dims or a.layout.shape != b.layout.shape:
        raise Reject("its operands differ in shape", "multiply tensors of equal shape")
    names = []
    for value, side in ((a, "a"), (b, "b")):
        if not value.streams or value.upsample > 1 or value.padding != NO_PADDING:
            value = builder.identity(value, name=f"{builder.at}.{side}")
        names.append(builder.add(f"{builder.at}.{side}.codes", builder.encoding(value)))
    sizes = a.layout.sizes
    op = ProductOp(names[0], names[1], a.channels, sizes["h"], sizes["w"])
    return Value(a.layout, source=builder.add(builder.at, op))


def glu(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.glu: one half of the channels times the sigmoid of the other."""
    dim = call.args[1] if len(call.args) > 1 else -1
    value = operands.value(call.args[0])
    half = value.layout.shape[value.layout.index(dim)] // 2
    first = selected(builder, call, value, dim, 0, half)
    second = selected(builder, call, value, dim, half, half)
    return product(builder, first, activated(builder, second, "sigmoid"))


def split(builder: GraphBuilder, operands: Operands, call: Call) -> tuple[Value, ...]:
    """aten.split, aten.split_with_sizes or aten.chunk along channels."""
    given = arguments_of(call, "input", "sizes", "dim")
    value = operands.value(given["input"])
    dim = given.get("dim", 0)
    total = value.layout.shape[value.layout.index(dim)]
    sizes = given["sizes"]
    if isinstance(sizes, int):
        each = -(-total // sizes) if call.operator == "aten.chunk" else sizes
        sizes = [min(each, total - start) for start in range(0, total, each)]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return tuple(
        selected(builder, call, value, dim, int(start), size)
        for start, size in zip(starts, sizes, strict=False)
    )


def unbind(builder: GraphBuilder, operands: Operands, call: Call) -> tuple[Value, ...]:
    """aten.unbind along a part of the channels."""
    value = operands.value(call.args[0])
    dim = value.layout.index(call.args[1] if len(call.args) > 1 else 0)
    parts = (selected(builder, call, value, dim, i, 1) for i in range(value.layout.shape[dim]))
    return tuple(replace(p, layout=p.layout.squeeze([dim])) for p in parts)


def part(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """operator.getitem of what a split gives."""
    parts = operands.values.get(call.args[0].name) if isinstance(call.args[0], Ref) else None
    if not isinstance(parts, tuple):
        raise Reject("it takes an element of what is no split tensor", "split along channels")
    value = parts[call.args[1]]
    readers = map(builder.calls.call, builder.calls.graph.successors(call.args[0].name))
    alone = sum(reader.args[1] == call.args[1] for reader in readers) == 1
    return replace(value, exclusive=value.exclusive and alone and builder.used_once())


def slice_channels(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.slice or aten.narrow along channels."""
    given = arguments_of(call, "input", "dim", "start", "end", "step")
    value = operands.value(given["input"])
    dim = value.layout.index(given.get("dim", 0))
    total = value.layout.shape[dim]
    start, end = given.get("start") or 0, given.get("end")
    end = total if end is None else end
    if call.operator == "aten.narrow":
        end = start + end
    elif given.get("step", 1) != 1:
        raise Reject("it skips elements", "slice with step 1")
    start, end = (min(x + total if x < 0 else x, total) for x in (start, end))
    found = selected(builder, call, value, dim, start, end - start)
    return replace(found, exclusive=found.exclusive and builder.used_once())


def select(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.select along a part of the channels."""
    value = operands.value(call.args[0])
    dim = value.layout.index(call.args[1])
    start = call.args[2] % value.layout.shape[dim]
    found = selected(builder, call, value, dim, start, 1)
    once = found.exclusive and builder.used_once()
    return replace(found, layout=found.layout.squeeze([dim]), exclusive=once)


def selected(
    builder: GraphBuilder, call: Call, value: Value, dim: int, start: int, length: int
) -> Value:
    """`length` entries from `start` of a dimension that counts channels. The operators that write a
    stream write only these where nothing reads all of it, others are selected by an identity. A
    stream made here is exclusive if the present call's result has one reader."""
    layout, index = value.layout.selected(dim, start, length)
    if len(index) == value.channels:
        return value
    streams: tuple[str, ...] = ()
    exclusive = False
    if value.streams and value.norm is None and value.padding == NO_PADDING:
        streams, exclusive = _streams(builder, call, value, index)
    if not streams:
        return replace(_through_codes(builder, value, layout, index), exclusive=True)
    affine = value.affine and AffineOp(
        value.affine.gain[..., index], value.affine.offset[..., index]
    )
    return replace(
        value, layout=layout, streams=streams, affine=affine,
        exclusive=exclusive and value.is_stream,
    )  # fmt: skip


def _streams(
    builder: GraphBuilder, call: Call, value: Value, index: np.ndarray
) -> tuple[tuple[str, ...], bool]:
    """Streams that hold the channels `index`, and whether they are new; none where they cut a
    stream that cannot be divided."""
    found, start = [], 0
    for name in value.streams:
        channels = builder.op(name).channels
        inside = index[(index >= start) & (index < start + channels)] - start
        start += channels
        if len(inside) == channels:
            found.append(name)
        elif len(inside):
            if len(value.streams) > 1 or not _divisible(builder, call, name):
                return (), False
            return (_divided(builder, name, inside),), True
    return tuple(found), False


def _divisible(builder: GraphBuilder, call: Call, name: str) -> bool:
    stream: StreamOp = builder.op(name)
    plain = all(builder.op(linear).groups == 1 for linear in stream.linears)
    source = next(refs(call.args))
    return plain and not stream.adds and _only_selected(builder, source)


def _only_selected(builder: GraphBuilder, name: str) -> bool:
    """Whether every reader of a call's result, through views, takes some of its channels."""
    graph = builder.calls.graph
    return all(
        operator in SELECTORS or (operator in REGROUPING and _only_selected(builder, reader))
        for reader in graph.successors(name)
        for operator in [builder.calls.call(reader).operator]
    )


def _divided(builder: GraphBuilder, name: str, index: np.ndarray) -> str:
    """A stream of the channels `index` of another, written by operators of its own."""
    stream: StreamOp = builder.op(name)
    offset = None if stream.offset is None else stream.offset[..., index]
    new = replace(
        stream, channels=len(index), table=stream.table[..., index], offset=offset, linears=[]
    )
    added = builder.add(builder.at, new)
    for linear in stream.linears:
        op = builder.op(linear)
        weight = rows_of(op.weight, index)
        new.linears.append(
            builder.add(f"{builder.at}.linear", replace(op, out=added, weight=weight))
        )
    return added


def _through_codes(builder: GraphBuilder, value: Value, layout: Layout, index: np.ndarray) -> Value:
    weight = np.zeros((len(index), value.channels, 1, 1), np.float32)
    weight[np.arange(len(index)), index] = 1.0
    return builder.linear(value, weight, None, layout)
