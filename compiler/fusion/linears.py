"""Operators that write streams: convolution, matrix product, pooling, addition, scaling."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from signmask.compiler.fusion.constants import multiplied, scaled, shifted
from signmask.compiler.fusion.encodings import arguments_of, padded
from signmask.compiler.fusion.graph_builder import LARGEST, GraphBuilder, check_sizes
from signmask.compiler.fusion.operands import Operands
from signmask.compiler.fusion.products import product
from signmask.compiler.fusion.value import Reject, Value
from signmask.compiler.graph import Call
from signmask.compiler.layout import Layout
from signmask.compiler.synthetic import absent, is_absent

POOLING = ("input", "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad",
           "divisor_override")  # fmt: skip
CONVOLUTION = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


def conv2d(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.conv2d that `check_conv2d` admits."""
    given = arguments_of(call, *CONVOLUTION)
    value = operands.value(given["input"])
    if not value.layout.is_image:
        raise Reject("its input is not (N, C, H, W)", "convolve images only")
    weight = operands.weight(given["weight"])
    stride, padding = given.get("stride", [1])[0], _padding(given, weight.shape[2:])[0]
    if given.get("padding") == "same":  # of an even kernel, one more on the right and below
        more = (weight.shape[2] - 1) % 2
        value = padded(value, (0, more, 0, more))
    for factor in gathers(weight.shape[2], stride):
        value, weight = _gathered(builder, value, weight, factor, padding)
        stride, padding = stride // factor, 0
    bias = given.get("bias")
    offset = None if bias is None else operands.constant(bias)
    layout = Layout.of_shape(call.shape)
    return builder.linear(value, weight, offset, layout, stride, padding, given.get("groups", 1))


def check_conv2d(operands: Operands, call: Call) -> None:
    """Raise Reject for what no aten.conv2d may be: dilated, not square, too large."""
    given = arguments_of(call, *CONVOLUTION)
    kernel = operands.calls.shape(given["weight"].name)[2:]
    stride, padding = given.get("stride", [1]), _padding(given, kernel)
    if len({*kernel}) > 1 or len({*stride}) > 1 or len({*padding}) > 1:
        shapes = f"kernel {tuple(kernel)}, stride {tuple(stride)}, padding {tuple(padding)}"
        raise Reject(f"one of {shapes} is not square", "use equal values in both directions")
    if {*given.get("dilation", [1])} != {1}:
        raise Reject("the convolution is dilated", "use dilation=1")
    gathered = prod(gathers(kernel[0], stride[0]))
    check_sizes(kernel=kernel[0] // gathered, padding=padding[0])


def gathers(kernel: int, stride: int) -> list[int]:
    """Factors of a stride that is too large: one after the other, squares of so many positions
    become channels. Raises Reject where windows overlap or the stride has larger prime factors."""
    found: list[int] = []
    while stride > LARGEST["stride"]:
        factor = next((f for f in (2, 3) if kernel == stride and stride % f == 0), 0)
        if not factor:
            raise Reject(
                f"its stride is {stride} and its kernel {kernel}, and the accelerator's largest "
                f"stride is {LARGEST['stride']}",
                f"use a stride of at most {LARGEST['stride']}, or of products of 2 and 3 with an "
                "equal kernel",
            )
        found.append(factor)
        kernel, stride = kernel // factor, stride // factor
    return found


def _gathered(
    builder: GraphBuilder, value: Value, weight: np.ndarray, factor: int, padding: int
) -> tuple[Value, np.ndarray]:
    """(value, weight) of a convolution whose windows do not overlap, once each square of factor x
    factor positions has become channels."""
    out, given, kernel = weight.shape[:3]
    square, side = factor**2, kernel // factor
    filters, groups = builder.per_channel(
        value, np.tile(np.eye(square).reshape(square, factor, factor), (value.channels, 1, 1))
    )
    sizes = value.layout.sizes
    rows, columns = ((sizes[axis] + 2 * padding) // factor for axis in "hw")
    layout = Layout.of_shape((sizes["n"], value.channels * square, rows, columns))
    found = builder.linear(
        value, filters, None, layout, factor, padding, groups, f"{builder.at}.patches"
    )
    shape = (out, given * square, side, side)
    if is_absent(weight):
        return found, absent(shape)
    digits = weight.reshape(out, given, side, factor, side, factor).transpose(0, 1, 3, 5, 2, 4)
    return found, np.ascontiguousarray(digits).reshape(shape)


def _padding(given: dict[str, Any], kernel: Sequence[int]) -> list[int]:
    """Padding of an aten.conv2d above and on the left."""
    padding = given.get("padding", [0])
    if padding == "valid":
        return [0]
    return [(k - 1) // 2 for k in kernel] if padding == "same" else list(padding)


def linear(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.linear on (..., channels)."""
    given = arguments_of(call, "input", "weight", "bias")
    weight = operands.weight(given["weight"])
    return _matrix(builder, operands, operands.value(given["input"]), weight, given.get("bias"))


def matmul(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.matmul or aten.mm with a constant matrix on the right."""
    value = operands.value(call.args[0])
    if operands.find(call.args[1]) is not None:
        raise Reject(
            "it multiplies two matrices of the sample outside of softmax attention",
            "use scaled_dot_product_attention, or softmax of one product in another",
        )
    weight = operands.weight(call.args[1])
    if weight.ndim != 2:
        raise Reject("its right operand is not a matrix", "multiply by one constant matrix")
    return _matrix(builder, operands, value, weight.T, None)


def addmm(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.addmm: a constant vector plus a matrix product."""
    given = arguments_of(call, "bias", "input", "matrix")
    if given.get("beta", 1) != 1 or given.get("alpha", 1) != 1:
        raise Reject("it scales its operands", "use linear")
    weight = operands.weight(given["matrix"])
    return _matrix(builder, operands, operands.value(given["input"]), weight.T, given["bias"])


def _matrix(
    builder: GraphBuilder, operands: Operands, value: Value, weight: np.ndarray, bias: Any
) -> Value:
    if not value.layout.is_sequence:
        raise Reject("its input is not (..., C)", "move channels to the last dimension")
    if not is_absent(weight):
        weight = np.ascontiguousarray(weight)
    kernel = weight[:, :, None, None]
    offset = None if bias is None else operands.vector(bias, len(kernel), 0.0)
    return builder.linear(value, kernel, offset, value.layout.replaced(-1, "c", len(kernel)))


def avg_pool2d(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.avg_pool2d, as a filter of each channel."""
    given = arguments_of(call, *POOLING)
    value = operands.value(given["input"])
    kernel = given["kernel_size"]
    stride, padding = given.get("stride") or kernel, given.get("padding", [0])
    return _pooled(builder, value, kernel[0], stride[0], padding[0], Layout.of_shape(call.shape))


def check_avg_pool2d(operands: Operands, call: Call) -> None:
    """Raise Reject for what no aten.avg_pool2d may be."""
    del operands
    given = arguments_of(call, *POOLING)
    kernel = given["kernel_size"]
    stride, padding = given.get("stride") or kernel, given.get("padding", [0])
    if len({*kernel}) > 1 or len({*stride}) > 1 or len({*padding}) > 1:
        raise Reject("its window is not square", "use equal values in both directions")
    partial = padding[0] and not given.get("count_include_pad", True)
    if given.get("ceil_mode") or given.get("divisor_override") or partial:
        raise Reject("some of its windows are smaller than others", "pool without padding")
    check_sizes(kernel=kernel[0], stride=stride[0], padding=padding[0])


def adaptive_avg_pool2d(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.adaptive_avg_pool2d to a whole fraction of the size."""
    value = operands.value(call.args[0])
    sizes, (rows, columns) = value.layout.sizes, call.shape[2:]
    factor = sizes["h"] // rows
    if (rows * factor, columns * factor) != (sizes["h"], sizes["w"]):
        raise Reject("some of its windows are larger than others", "pool by a whole factor")
    return _pooled(builder, value, factor, factor, 0, Layout.of_shape(call.shape))


def _pooled(
    builder: GraphBuilder, value: Value, kernel: int, stride: int, padding: int, layout: Layout
) -> Value:
    if not value.layout.is_image:
        raise Reject("its input is not (N, C, H, W)", "pool images only")
    filters = np.full((value.channels, kernel, kernel), kernel**-2.0)
    weight, groups = builder.per_channel(value, filters)
    return builder.linear(value, weight, None, layout, stride, padding, groups)


def add(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.add or aten.sub of two tensors, or of a tensor and a constant."""
    sign = -1.0 if call.operator == "aten.sub" else 1.0
    sign *= float(call.kwargs.get("alpha", 1))
    left, right = call.args[0], call.args[1]
    a, b = operands.find(left), operands.find(right)
    if a is not None and b is not None:
        return builder.sum(a, b, sign)
    if a is not None:
        return shifted(builder, operands, a, right, sign)
    value = operands.value(right)
    if sign != 1.0:
        value = scaled(builder, operands, value, sign)
    return shifted(builder, operands, value, left)


def subtract_from(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.rsub: a constant minus a tensor."""
    value = operands.value(call.args[0])
    alpha = float(call.kwargs.get("alpha", call.args[2] if len(call.args) > 2 else 1))
    negative = scaled(builder, operands, value, -alpha)
    return shifted(builder, operands, negative, call.args[1])


def negate(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.neg."""
    return scaled(builder, operands, operands.value(call.args[0]), -1.0)


def multiply(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.mul of two tensors, or of a tensor and a constant."""
    left, right = call.args[0], call.args[1]
    a, b = operands.find(left), operands.find(right)
    if a is not None and b is not None:
        return product(builder, a, b)
    if a is None:
        a, right = operands.value(right), left
    return scaled(builder, operands, a, right)


def divide(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.div by a constant."""
    value = operands.value(call.args[0])
    if operands.find(call.args[1]) is not None:
        raise Reject("it divides by a tensor of the sample", "divide by constants")
    divisor = operands.spread(call.args[1], value.layout)
    if (divisor == 0).any():
        raise Reject("it divides by zero", "divide by other constants")
    if divisor.shape[2] > 1:
        raise Reject("it divides by a constant that varies over positions", "divide channels only")
    return multiplied(builder, value, 1.0 / divisor[:, :, 0])


def check_divide(operands: Operands, call: Call) -> None:
    """Raise Reject for an aten.div that rounds."""
    del operands
    if call.kwargs.get("rounding_mode"):
        raise Reject("it rounds what it divides", "divide without rounding_mode")


def square(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.square, or aten.pow with exponent 2."""
    value = operands.value(call.args[0])
    return product(builder, value, value)


def check_square(operands: Operands, call: Call) -> None:
    """Raise Reject for an aten.pow with another exponent than 2."""
    del operands
    if len(call.args) > 1 and call.args[1] != 2:
        raise Reject("it raises to another power than 2", "multiply instead")
