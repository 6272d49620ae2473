"""Operators that write streams: convolution, matrix product, addition, scaling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from signmask.compiler.fusion.graph_builder import GraphBuilder
from signmask.compiler.fusion.operands import Operands
from signmask.compiler.fusion.value import Reject, Value
from signmask.compiler.graph import Call
from signmask.compiler.layout import Layout


def conv2d(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.conv2d: square kernel, stride and padding, one group, no dilation."""
    arguments = dict(
        zip(("x", "weight", "bias", "stride", "padding", "dilation", "groups"), call.args,
            strict=False)
    )  # fmt: skip
    value = operands.value(call.args[0])
    weight = operands.constant(arguments["weight"]).astype(np.float32)
    bias = arguments.get("bias")
    kernel = weight.shape[2:]
    stride, padding = arguments.get("stride", [1, 1]), arguments.get("padding", [0, 0])
    if padding == "valid":
        padding = [0, 0]
    elif padding == "same":
        padding = [k // 2 for k in kernel]
    if kernel[0] != kernel[1] or len({*stride}) > 1 or len({*padding}) > 1:
        shapes = f"kernel {tuple(kernel)}, stride {tuple(stride)}, padding {tuple(padding)}"
        raise Reject(
            f"one of {shapes} is not square",
            "use equal values in both directions",
        )
    if arguments.get("groups", 1) != 1 or {*arguments.get("dilation", [1])} != {1}:
        raise Reject("the convolution is grouped or dilated", "use groups=1 and dilation=1")
    if not value.layout.is_channels_first or len(value.layout.dims) != 4:
        raise Reject("its input is not (N, C, H, W)", "convolve images only")
    offset = None if bias is None else operands.constant(bias)
    layout = Layout.of_shape(call.shape)
    return builder.linear(value, weight, offset, layout, stride[0], padding[0])


def linear(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.linear on (images, positions, channels)."""
    value = operands.value(call.args[0])
    if not value.layout.is_sequence:
        raise Reject("its input is not (N, tokens, C)", "move channels to the last dimension")
    weight = operands.constant(call.args[1]).astype(np.float32)[:, :, None, None]
    bias = operands.constant(call.args[2]) if len(call.args) > 2 and call.args[2] else None
    return builder.linear(value, weight, bias, value.layout.resized(c=weight.shape[0]))


def add(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.add or aten.sub of two tensors, or of a tensor and a per-channel constant."""
    sign = -1.0 if call.operator == "aten.sub" else 1.0
    sign *= float(call.kwargs.get("alpha", 1))
    left, right = call.args[0], call.args[1]
    a, b = operands.find(left), operands.find(right)
    if a is not None and b is not None:
        return builder.sum(a, b, sign)
    if a is not None:
        value, gain, other, factor = a, 1.0, right, sign
    else:
        value, gain, other, factor = operands.value(right), sign, left, 1.0
    table = factor * operands.table(other, value.layout)
    return builder.with_table(builder.as_stream(value, gain), table)


def subtract_from(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.rsub: a number or per-channel constant minus a tensor."""
    value = operands.value(call.args[0])
    alpha = float(call.kwargs.get("alpha", call.args[2] if len(call.args) > 2 else 1))
    table = operands.table(call.args[1], value.layout)
    return builder.with_table(builder.as_stream(value, -alpha), table)


def scale(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.mul or aten.div by a number."""
    value, factor = operands.value(call.args[0]), call.args[1]
    if not isinstance(factor, (int, float)):
        try:
            array = operands.constant(factor)
        except Reject:
            raise Reject(
                "it multiplies or divides by a tensor of the sample or of the timestep",
                "scale by a single constant number",
            ) from None
        if array.size != 1:
            raise Reject("it scales by a tensor", "scale by a single constant number")
        factor = float(array.reshape(()))
    gain = 1.0 / factor if call.operator == "aten.div" else float(factor)
    return replace(builder.as_stream(value, gain), exclusive=builder.used_once())
