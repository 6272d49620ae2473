"""Operators that stand between streams and codes: concatenation, normalisation, activation,
enlargement. They are folded into the encoding that their reader makes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from signmask.compiler.fusion.graph_builder import GraphBuilder
from signmask.compiler.fusion.operands import Operands
from signmask.compiler.fusion.value import Reject, Value
from signmask.compiler.graph import Activation, Call, NormOp


def cat(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.cat along channels."""
    values = [operands.value(item) for item in call.args[0]]
    layout = values[0].layout
    dim = layout.index(call.args[1] if len(call.args) > 1 else 0)
    if layout.dims[dim] != ("c",) or any(v.layout.dims != layout.dims for v in values):
        raise Reject("it does not join channels", "concatenate along the channel dimension")
    parts = [v if v.is_raw else builder.as_stream(v) for v in values]
    channels = sum(v.layout.sizes["c"] for v in values)
    streams = tuple(s for v in parts for s in v.streams)
    return Value(layout.resized(c=channels), streams=streams)


def group_norm(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.group_norm over (images, channels, positions)."""
    value = operands.value(call.args[0])
    if not value.layout.is_channels_first:
        raise Reject("its input is not (N, C, positions)", "normalise channels-first tensors")
    if value.source or value.norm is not None or value.activation != "identity":
        value = builder.as_stream(value)
    channels, groups = value.layout.sizes["c"], call.args[1]
    arguments = dict(zip(("weight", "bias", "eps"), call.args[2:], strict=False))
    weight, bias = arguments.get("weight"), arguments.get("bias")
    norm = NormOp(
        groups,
        float(arguments.get("eps", 1e-5)),
        np.ones(channels) if weight is None else operands.constant(weight),
        np.zeros(channels) if bias is None else operands.constant(bias),
    )
    return replace(value, norm=norm, exclusive=False)


def activation(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.silu or aten.relu."""
    value = operands.value(call.args[0])
    if value.source or value.activation != "identity":
        value = builder.as_stream(value)
    kind: Activation = "silu" if call.operator == "aten.silu" else "relu"
    return replace(value, activation=kind, exclusive=False)


def upsample(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.upsample_nearest2d by a whole factor."""
    value = operands.value(call.args[0])
    height, width = value.layout.sizes["h"], value.layout.sizes["w"]
    factor = call.shape[2] // height
    if call.shape[2:] != (height * factor, width * factor):
        raise Reject(
            f"it resizes {height}x{width} to {call.shape[2]}x{call.shape[3]}",
            "enlarge both directions by the same whole factor",
        )
    layout = value.layout.resized(h=height * factor, w=width * factor)
    return replace(value, layout=layout, upsample=value.upsample * factor, exclusive=False)
