"""Operators that move no data in channels-last order: views, transposes, changes of format."""

from __future__ import annotations

from dataclasses import replace

from signmask.compiler.fusion.graph_builder import GraphBuilder
from signmask.compiler.fusion.operands import Operands
from signmask.compiler.fusion.value import Value
from signmask.compiler.graph import Call
from signmask.compiler.layout import Layout


def view(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.view and relatives that only regroup dimensions."""
    value = operands.value(call.args[0])
    return _rearranged(builder, value, value.layout.view(call.shape))


def transpose(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.transpose."""
    value = operands.value(call.args[0])
    return _rearranged(builder, value, value.layout.transpose(*call.args[1:3]))


def permute(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.permute."""
    value = operands.value(call.args[0])
    return _rearranged(builder, value, value.layout.permute(call.args[1]))


def copy(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten._to_copy: a change of floating-point format."""
    value = operands.value(call.args[0])
    return _rearranged(builder, value, value.layout)


def _rearranged(builder: GraphBuilder, value: Value, layout: Layout) -> Value:
    return replace(value, layout=layout, exclusive=value.exclusive and builder.used_once())
