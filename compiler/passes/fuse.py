"""Fuse. Needs: a CallGraph without its time path, and the arrays of that path. Guarantees: a
TensorGraph with the same function in real numbers; concatenations, views and upsampling are folded
away; every unsupported operator has been reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import networkx as nx
import numpy as np

from signmask.compiler.errors import Rejection, UnsupportedOperators, source_line
from signmask.compiler.fusion.composites import rewrite_composites, rewritten
from signmask.compiler.fusion.graph_builder import GraphBuilder
from signmask.compiler.fusion.operands import Operands
from signmask.compiler.fusion.patterns import pattern_of
from signmask.compiler.fusion.scores import rewrite_attention
from signmask.compiler.fusion.value import Reject, Value
from signmask.compiler.graph import CallGraph, InputOp, Ref, TensorGraph, refs
from signmask.compiler.layout import Factor, Layout, LayoutError


def fuse(
    calls: CallGraph, constants: Mapping[str, np.ndarray], timesteps: Sequence[int]
) -> TensorGraph:
    """The TensorGraph of `calls`; raises UnsupportedOperators with every offending call."""
    constants = rewritten(calls, constants, rewrite_composites, rewrite_attention)
    builder = GraphBuilder(calls, len(timesteps))
    operands = Operands(calls, constants, len(timesteps))
    operands.values[calls.sample] = _input(calls, builder)
    rejections: list[Rejection] = []
    for name in nx.topological_sort(calls.graph):
        call = calls.call(name)
        if name == calls.sample or call.target is None or name in constants:
            continue
        builder.at = name
        used = [n for n in refs((call.args, call.kwargs)) if n in operands.values]
        operands.values[name] = None
        try:
            pattern = pattern_of(call)
            pattern.check(operands, call)
            if all(operands.values[n] is not None for n in used):  # else rejected already
                operands.values[name] = pattern.fuse(builder, operands, call)
        except Reject as error:
            rejections.append(_rejection(calls, name, error.reason, error.remedy))
        except LayoutError as error:
            remedy = "keep images, channels and positions apart"
            rejections.append(_rejection(calls, name, str(error), remedy))
    if rejections:
        raise UnsupportedOperators(rejections)
    builder.at = "output"
    value, patch, order = _result(calls, operands)
    try:
        output = builder.output(value, order)
    except Reject as error:
        rejection = _rejection(calls, calls.output, error.reason, error.remedy)
        raise UnsupportedOperators([rejection]) from None
    builder.connect(output)
    return TensorGraph(builder.graph, calls.sample, output, tuple(timesteps), patch, builder.images)


def _rejection(calls: CallGraph, name: str, reason: str, remedy: str) -> Rejection:
    call = calls.call(name)
    operator = call.operator or "input"
    return Rejection(operator, name, source_line(call.trace), reason, remedy)


def _input(calls: CallGraph, builder: GraphBuilder) -> Value:
    """The sample, as codes that the host gives."""
    name = calls.sample
    try:
        layout = Layout.of_shape(calls.call(name).shape)
    except LayoutError as error:
        remedy = "make the sample (N, C, H, W) or (N, tokens, C)"
        raise UnsupportedOperators([_rejection(calls, name, str(error), remedy)]) from None
    sizes = layout.sizes
    return Value(layout, source=builder.add(name, InputOp(sizes["c"], sizes["h"], sizes["w"])))


def _result(calls: CallGraph, operands: Operands) -> tuple[Value, int, np.ndarray]:
    """What the model returns, the edge of its patches, and the order in which its channels are the
    pixels of a patch, row by row, then the image's channels."""
    value = operands.find(Ref(calls.output))
    sample = Layout.of_shape(calls.call(calls.sample).shape)
    shape = calls.call(calls.output).shape
    found = None if value is None else _patches(value.layout, sample)
    if value is None or found is None:
        reason = "the output's layout differs from the sample's"
        rejection = _rejection(calls, calls.output, reason, "return the sample's layout")
        raise UnsupportedOperators([rejection])
    axis = 1 if len(shape) == 4 else 2
    given = calls.call(calls.sample).shape
    if shape[axis] < given[axis]:
        reason = f"the output has {shape[axis]} channels, the sample {given[axis]}"
        rejection = _rejection(calls, calls.output, reason, "predict all channels of the sample")
        raise UnsupportedOperators([rejection])
    return value, *found


def _patches(layout: Layout, sample: Layout) -> tuple[int, np.ndarray] | None:
    """(patch, order of channels) of an output like the sample; None where it is unlike."""
    if len(layout.dims) != len(sample.dims) or layout.shape[0] != sample.shape[0]:
        return None
    if len(sample.dims) == 3:
        alike = layout.is_sequence and layout.dims[1] == sample.dims[1]
        return (1, np.arange(layout.sizes["c"])) if alike else None
    if layout.shape[2:] != sample.shape[2:]:
        return None
    inner = []
    for axis, dim in (("h", layout.dims[2]), ("w", layout.dims[3])):
        whole = (Factor(axis, 1, layout.sizes[axis]),) if layout.sizes[axis] > 1 else ()
        if dim[: len(whole)] != whole:
            return None
        inner.append(_digits(dim[len(whole) :]))
    (rows, columns), channels = inner, _digits(layout.dims[1])
    if rows is None or columns is None or channels is None or len(rows) != len(columns):
        return None
    order = rows[:, None, None] + columns[None, :, None] + channels
    return len(rows), order.reshape(-1)


def _digits(dim: Sequence[Factor]) -> np.ndarray | None:
    """What each index of a dimension adds to the channel; None where it is another axis."""
    index = np.zeros(1, np.int64)
    for factor in dim:
        if factor.axis != "c":
            return None
        index = (index[:, None] + factor.stride * np.arange(factor.size)).reshape(-1)
    return index
