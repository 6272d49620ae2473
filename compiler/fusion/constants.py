"""Sums and products of a value with constants: folded into what follows a norm, into the weights
that write a stream, or kept as gain and offset per step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from signmask.compiler.fusion.graph_builder import GraphBuilder
from signmask.compiler.fusion.operands import same_at_all_steps
from signmask.compiler.fusion.value import Reject, Value
from signmask.compiler.graph import AffineOp, NormOp


def scaled(builder: GraphBuilder, value: Value, factor: np.ndarray) -> Value:
    """`factor * value`; `factor` is (steps or 1, positions or 1, channels or 1). Raises Reject."""
    if factor.shape[1] > 1:
        raise Reject(
            "it scales by a constant that varies over positions", "scale whole channels only"
        )
    gain = factor[:, 0]
    if value.is_linear and value.norm is not None:
        return replace(value, norm=_after(value.norm, gain, np.zeros((1, 1))))
    if not (value.is_linear and value.affine is not None) and same_at_all_steps(gain):
        one = gain[0] if gain.shape[1] > 1 else float(gain[0, 0])
        stream = builder.as_stream(value, one)
        return replace(stream, exclusive=stream.exclusive and builder.used_once())
    return _affine(builder, value, gain, np.zeros((1, 1)))


def shifted(builder: GraphBuilder, value: Value, addend: np.ndarray) -> Value:
    """`value + addend`; `addend` is (steps or 1, positions or 1, channels or 1). Raises Reject."""
    if addend.shape[1] > 1:
        return _with_offset(builder, value, addend)
    if value.is_linear and value.norm is not None:
        return replace(value, norm=_after(value.norm, np.ones((1, 1)), addend[:, 0]))
    if value.is_linear and value.affine is not None:
        return _affine(builder, value, np.ones((1, 1)), addend[:, 0])
    table = np.broadcast_to(addend[:, 0], (builder.steps, value.channels)).copy()
    return builder.with_constants(builder.as_stream(value), table, None)


def _with_offset(builder: GraphBuilder, value: Value, addend: np.ndarray) -> Value:
    if not same_at_all_steps(addend):
        raise Reject(
            "it adds a constant that varies over positions and over timesteps",
            "add what depends on the timestep and what depends on the position apart",
        )
    stream = builder.as_stream(value)
    if addend.shape[1] != value.layout.positions:
        raise Reject("its constant does not fit the positions", "add one value per position")
    offset = np.broadcast_to(addend[:1], (1, addend.shape[1], value.channels)).copy()
    table = np.zeros((builder.steps, value.channels))
    return builder.with_constants(stream, table, offset)


def _affine(builder: GraphBuilder, value: Value, gain: np.ndarray, offset: np.ndarray) -> Value:
    """gain * value + offset, both (steps or 1, channels or 1)."""
    if not value.is_linear:
        value = builder.as_stream(value)
    shape = (builder.steps, value.channels)
    if value.affine is not None:
        offset = gain * value.affine.offset + offset
        gain = gain * value.affine.gain
    affine = AffineOp(np.broadcast_to(gain, shape).copy(), np.broadcast_to(offset, shape).copy())
    return replace(value, affine=affine, exclusive=False)


def _after(norm: NormOp, gain: np.ndarray, offset: np.ndarray) -> NormOp:
    """The norm followed by gain and offset, both (steps or 1, channels or 1)."""
    weight, bias = norm.weight * gain, norm.bias * gain + offset
    weight, bias = (np.broadcast_to(x, np.broadcast_shapes(weight.shape, bias.shape)).copy()
                    for x in (weight, bias))  # fmt: skip
    if same_at_all_steps(weight) and same_at_all_steps(bias):
        weight, bias = weight[0], bias[0]
    return replace(norm, weight=weight, bias=bias)
