"""Operators that move no data in channels-last order: views, transposes, changes of format."""

from __future__ import annotations

from dataclasses import replace

from signmask.compiler.fusion.composites import is_cast
from signmask.compiler.fusion.encodings import arguments_of
from signmask.compiler.fusion.graph_builder import GraphBuilder
from signmask.compiler.fusion.operands import Operands
from signmask.compiler.fusion.value import Reject, Value
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


def transpose_matrix(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.t."""
    value = operands.value(call.args[0])
    return _rearranged(builder, value, value.layout.transpose(0, 1))


def unsqueeze(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.unsqueeze."""
    value = operands.value(call.args[0])
    return _rearranged(builder, value, value.layout.unsqueeze(call.args[1]))


def squeeze(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.squeeze of all dimensions, one, or several."""
    value = operands.value(call.args[0])
    given = call.args[1] if len(call.args) > 1 else range(len(value.layout.dims))
    dims = [given] if isinstance(given, int) else list(given)
    return _rearranged(builder, value, value.layout.squeeze(dims))


def expand(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.expand or aten.repeat that repeats nothing."""
    value = operands.value(call.args[0])
    if call.shape != value.layout.shape:
        raise Reject("it repeats a tensor of the sample", "keep the sample's shape")
    return _rearranged(builder, value, value.layout)


def einsum(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.einsum of one tensor: a permutation."""
    given = arguments_of(call, "equation", "operands")
    left, _, right = given["equation"].replace(" ", "").partition("->")
    if len(given["operands"]) != 1 or sorted(left) != sorted(right) or len({*left}) < len(left):
        raise Reject(
            "it sums products outside of softmax attention",
            "use linear, or scaled_dot_product_attention",
        )
    value = operands.value(given["operands"][0])
    return _rearranged(builder, value, value.layout.permute([left.index(x) for x in right]))


def pixel_shuffle(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.pixel_shuffle: parts of the channels become positions, at the network's output."""
    value = operands.value(call.args[0])
    n, channels, height, width = value.layout.shape
    factor = call.args[1]
    split = (n, channels // factor**2, factor, factor, height, width)
    layout = value.layout.view(split).permute((0, 1, 4, 2, 5, 3)).view(call.shape)
    return _rearranged(builder, value, layout)


def copy(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten._to_copy: a change of floating-point format."""
    value = operands.value(call.args[0])
    return _rearranged(builder, value, value.layout)


def check_copy(operands: Operands, call: Call) -> None:
    """Raise Reject for an aten._to_copy to whole numbers or truth values."""
    del operands
    if not is_cast(call):
        raise Reject(
            f"it converts a tensor of the sample to {call.dtype}, which rounds",
            "keep what depends on the sample in a floating-point format",
        )


def _rearranged(builder: GraphBuilder, value: Value, layout: Layout) -> Value:
    return replace(value, layout=layout, exclusive=value.exclusive and builder.used_once())
