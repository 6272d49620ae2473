"""Operators that stand between streams and codes: concatenation, normalisation, activation,
enlargement, padding. They are folded into the encoding that their reader makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from signmask.compiler.fusion.constants import added, multiplied
from signmask.compiler.fusion.graph_builder import LARGEST_UPSAMPLE, GraphBuilder
from signmask.compiler.fusion.operands import Operands
from signmask.compiler.fusion.value import NO_PADDING, Padding, Reject, Value
from signmask.compiler.graph import Activation, Call, NormOp

FLOAT32_EPSILON = 2.0**-23


def arguments_of(call: Call, *names: str) -> dict[str, Any]:
    """Positional and named arguments by name; those not given are absent."""
    return {**dict(zip(names, call.args, strict=False)), **call.kwargs}


def cat(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.cat along channels."""
    values = [operands.value(item) for item in call.args[0]]
    layout = values[0].layout
    dim = layout.index(call.args[1] if len(call.args) > 1 else 0)
    others = [v.layout.dims[:dim] + v.layout.dims[dim + 1 :] for v in values]
    if any(not v.layout.holds(dim, "c") or o != others[0] for v, o in zip(values, others)):  # noqa: B905
        raise Reject("it does not join channels", "concatenate along the channel dimension")
    parts = [v if v.is_raw else builder.as_stream(v) for v in values]
    streams = tuple(s for v in parts for s in v.streams)
    return Value(layout.replaced(dim, "c", sum(v.channels for v in values)), streams=streams)


def group_norm(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.group_norm over (images, channels, positions), or aten.instance_norm."""
    value = operands.value(call.args[0])
    if not value.layout.is_channels_first:
        raise Reject("its input is not (N, C, positions)", "normalise channels-first tensors")
    if not value.is_linear or value.norm is not None or value.affine is not None:
        value = builder.as_stream(value)
    names: tuple[str, ...] = ("input", "num_groups", "weight", "bias", "eps")
    if call.operator == "aten.instance_norm":
        names = ("input", "weight", "bias", "mean", "variance", "by_input", "momentum", "eps")
    given = arguments_of(call, *names)
    norm = NormOp(
        given.get("num_groups", value.channels),
        float(given.get("eps", 1e-5)),
        operands.vector(given.get("weight"), value.channels, 1.0),
        operands.vector(given.get("bias"), value.channels, 0.0),
    )
    return replace(value, norm=norm, exclusive=False)


def check_instance_norm(operands: Operands, call: Call) -> None:
    """Raise Reject for an aten.instance_norm by running statistics."""
    del operands
    if not call.args[5]:
        raise Reject(
            "it normalises by running statistics", "use BatchNorm2d, or track_running_stats=False"
        )


def layer_norm(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.layer_norm over the channels of each position."""
    given = arguments_of(call, "input", "normalized_shape", "weight", "bias", "eps")
    return _token_norm(builder, operands, given, float(given.get("eps", 1e-5)), True)


def rms_norm(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.rms_norm over the channels of each position."""
    given = arguments_of(call, "input", "normalized_shape", "weight", "eps")
    epsilon = given.get("eps")
    epsilon = FLOAT32_EPSILON if epsilon is None else float(epsilon)
    return _token_norm(builder, operands, given, epsilon, False)


def _token_norm(
    builder: GraphBuilder, operands: Operands, given: dict[str, Any], epsilon: float,
    centred: bool,
) -> Value:  # fmt: skip
    value = operands.value(given["input"])
    if not value.layout.holds(-1, "c") or list(given["normalized_shape"]) != [value.channels]:
        raise Reject("it normalises other than the channels of a position",
                     "move channels to the last dimension")  # fmt: skip
    # Statistics of a position are taken over one stream.
    if not value.is_linear or value.norm or value.affine or len(value.streams) > 1:
        value = builder.as_stream(value)
    weight = operands.vector(given.get("weight"), value.channels, 1.0)
    bias = operands.vector(given.get("bias"), value.channels, 0.0)
    norm = NormOp(1, epsilon, weight, bias, axis="token", centred=centred)
    return replace(value, norm=norm, exclusive=False)


def batch_norm(builder: GraphBuilder, operands: Operands, call: Call) -> tuple[Value, ...]:
    """aten._native_batch_norm_legit_no_training: constants per channel."""
    names = ("input", "weight", "bias", "mean", "var", "momentum", "eps")
    given = arguments_of(call, *names)
    value = operands.value(given["input"])
    if not value.layout.is_channels_first:
        raise Reject("its input is not (N, C, positions)", "normalise channels-first tensors")
    defaults = {"weight": 1.0, "bias": 0.0, "mean": 0.0, "var": 1.0}
    weight, bias, mean, variance = (
        operands.vector(given.get(n), value.channels, d) for n, d in defaults.items()
    )
    gain = weight / np.sqrt(variance + given["eps"])
    scaled = multiplied(builder, value, gain[None, None])
    return (added(builder, scaled, (bias - gain * mean)[None, None]),)


Parameters = Callable[[Call], Activation]


def activation(name: Activation | Parameters) -> Callable[..., Value]:
    """The pattern of an elementwise function, whose name may depend on the call's arguments."""

    def pattern(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
        kind = name if isinstance(name, str) else name(call)
        return activated(builder, operands.value(call.args[0]), kind)

    return pattern


def activated(builder: GraphBuilder, value: Value, kind: Activation) -> Value:
    """`kind` of a value."""
    if not value.is_linear:
        value = builder.as_stream(value)
    return replace(value, activation=kind, exclusive=False)


def gelu(call: Call) -> Activation:
    """Exact or by tanh."""
    given = arguments_of(call, "input", "approximate")
    return "gelu_tanh" if given.get("approximate", "none") == "tanh" else "gelu"


def clamp(call: Call) -> Activation:
    """aten.clamp between two numbers, or above zero."""
    given = arguments_of(call, "input", "min", "max")
    low, high = given.get("min"), given.get("max")
    if low == 0 and high is None:
        return "relu"
    if not isinstance(low, (int, float)) or not isinstance(high, (int, float)) or low > high:
        raise Reject("it has not two bounds that are numbers", "clamp between two numbers")
    return f"hardtanh:{float(low)}:{float(high)}"


def with_parameters(name: Activation, *defaults: tuple[str, float]) -> Parameters:
    """A function whose arguments after the tensor become part of its name; raises Reject where it
    has more arguments than that."""

    def kind(call: Call) -> Activation:
        given = arguments_of(call, "input", *(n for n, _ in defaults))
        if len(call.args) > len(defaults) + 1 or not given.keys() <= {"input", *dict(defaults)}:
            raise Reject("it has parameters that are not supported", "use its default parameters")
        values = [float(given.get(n, d)) for n, d in defaults]
        return ":".join([name, *map(str, values)])

    return kind


def upsample(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.upsample_nearest2d or aten._upsample_nearest_exact2d by a power of two."""
    value = operands.value(call.args[0])
    height, width = value.layout.sizes["h"], value.layout.sizes["w"]
    rows, columns = call.shape[2:]
    factor = rows // height
    if (rows, columns) != (height * factor, width * factor) or factor & (factor - 1):
        raise Reject(
            f"it resizes {height}x{width} to {rows}x{columns}",
            "enlarge both directions by the same power of two",
        )
    while factor > 1:
        if value.padding != NO_PADDING or value.upsample == LARGEST_UPSAMPLE:
            value = builder.as_stream(value)
        height, width, factor = 2 * height, 2 * width, factor // 2
        layout = value.layout.replaced(2, "h", height).replaced(3, "w", width)
        value = replace(value, layout=layout, upsample=2, exclusive=False)
    return value


def pad(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.pad or aten.constant_pad_nd with zeros around images."""
    value = operands.value(call.args[0])
    sides = [*_pad_arguments(call)["pad"], 0, 0, 0, 0]
    if not value.layout.is_image:
        raise Reject("its input is not (N, C, H, W)", "pad images only")
    return padded(value, (sides[0], sides[1], sides[2], sides[3]))


def check_pad(operands: Operands, call: Call) -> None:
    """Raise Reject for what no aten.pad may be."""
    del operands
    given = _pad_arguments(call)
    constant = given.get("mode", "constant") == "constant" and not given.get("value")
    if not constant or len(given["pad"]) > 4 or min(given["pad"], default=0) < 0:
        raise Reject("it pads with other than zeros, or crops", "pad images with zeros")


def padded(value: Value, sides: Padding) -> Value:
    """An image with zeros at its left, right, top and bottom."""
    left, right, top, bottom = (a + b for a, b in zip(value.padding, sides, strict=True))
    sizes = value.layout.sizes
    layout = value.layout.replaced(2, "h", sizes["h"] + sides[2] + sides[3])
    layout = layout.replaced(3, "w", sizes["w"] + sides[0] + sides[1])
    return replace(value, layout=layout, padding=(left, right, top, bottom), exclusive=False)


def _pad_arguments(call: Call) -> dict[str, Any]:
    mode = () if call.operator == "aten.constant_pad_nd" else ("mode",)
    return arguments_of(call, "input", "pad", *mode, "value")
