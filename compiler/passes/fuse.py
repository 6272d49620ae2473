"""Fuse. Needs: a CallGraph without its time path, and the arrays of that path. Guarantees: a
TensorGraph with the same function in real numbers; concatenations, views and upsampling are folded
away; every unsupported operator has been reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import networkx as nx
import numpy as np

from signmask.compiler.errors import Rejection, UnsupportedOperators, source_line
from signmask.compiler.fusion.graph_builder import GraphBuilder
from signmask.compiler.fusion.operands import Operands
from signmask.compiler.fusion.patterns import pattern_of
from signmask.compiler.fusion.value import Reject, Value
from signmask.compiler.graph import CallGraph, InputOp, TensorGraph, refs
from signmask.compiler.layout import Layout, LayoutError


def fuse(
    calls: CallGraph, constants: Mapping[str, np.ndarray], timesteps: Sequence[int]
) -> TensorGraph:
    """The TensorGraph of `calls`; raises UnsupportedOperators with every offending call."""
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
        if any(operands.values[n] is None for n in used):
            continue  # what it reads has been rejected already
        try:
            operands.values[name] = pattern_of(call)(builder, operands, call)
        except Reject as error:
            rejections.append(_rejection(calls, name, error.reason, error.remedy))
        except LayoutError as error:
            remedy = "keep channels and positions apart"
            rejections.append(_rejection(calls, name, str(error), remedy))
    if rejections:
        raise UnsupportedOperators(rejections)
    builder.at = "output"
    output = builder.output(_result(calls, operands))
    builder.connect()
    return TensorGraph(builder.graph, calls.sample, output, tuple(timesteps))


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


def _result(calls: CallGraph, operands: Operands) -> Value:
    """What the model returns."""
    value = operands.values.get(calls.output)
    expected = Layout.of_shape(calls.call(calls.sample).shape).dims
    if value is None or value.layout.dims != expected:
        reason = "the output's layout differs from the sample's"
        rejection = _rejection(calls, calls.output, reason, "return the sample's layout")
        raise UnsupportedOperators([rejection])
    return value
