"""Sums and products of a value with constants: folded into what follows a norm, into the weights
that write a stream, or kept as gain and offset per step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from signmask.compiler.fusion.graph_builder import GraphBuilder
from signmask.compiler.fusion.operands import Operands, same_at_all_steps
from signmask.compiler.fusion.value import Reject, Value
from signmask.compiler.graph import AffineOp, NormOp


def scaled(builder: GraphBuilder, operands: Operands, value: Value, factor: Any) -> Value:
    """`factor * value`; raises Reject."""
    rows = operands.spread(factor, value.layout)
    if rows.shape[1] > 1:
        raise operands.differing(factor)
    if rows.shape[2] > 1:
        raise Reject(
            "it scales by a constant that varies over positions", "scale whole channels only"
        )
    return multiplied(builder, value, rows[:, 0, 0])


def multiplied(builder: GraphBuilder, value: Value, gain: np.ndarray) -> Value:
    """`gain * value`; `gain` is (steps or 1, channels or 1)."""
    if value.is_linear and value.norm is not None:
        return replace(value, norm=_after(value.norm, gain, np.zeros((1, 1))))
    if not (value.is_linear and value.affine is not None) and same_at_all_steps(gain):
        one = gain[0] if gain.shape[1] > 1 else float(gain[0, 0])
        stream = builder.as_stream(value, one)
        return replace(stream, exclusive=stream.exclusive and builder.used_once())
    return _affine(builder, value, gain, np.zeros((1, 1)))


def shifted(
    builder: GraphBuilder, operands: Operands, value: Value, addend: Any, sign: float = 1.0
) -> Value:
    """`value + sign * addend`; raises Reject."""
    rows = sign * operands.spread(addend, value.layout)
    if rows.shape[1] * rows.shape[2] == 1:
        return added(builder, value, rows[:, 0, 0])
    if not same_at_all_steps(rows):
        if rows.shape[1] > 1:
            raise operands.differing(addend)
        raise Reject(
            "it adds a constant that varies over positions and over timesteps",
            "add what depends on the timestep and what depends on the position apart",
        )
    if rows.shape[1] > 1:  # known to be frames once an attention joins the images
        builder.differing[builder.at] = operands.differing(addend)
    shape = (rows.shape[1], value.layout.positions, value.channels)
    table = np.zeros((builder.steps, value.channels))
    stream = builder.as_stream(value)
    return builder.with_constants(stream, table, np.broadcast_to(rows[0], shape).copy())


def added(builder: GraphBuilder, value: Value, addend: np.ndarray) -> Value:
    """`value + addend`; `addend` is (steps or 1, channels or 1)."""
    if value.is_linear and value.norm is not None:
        return replace(value, norm=_after(value.norm, np.ones((1, 1)), addend))
    if value.is_linear and value.affine is not None:
        return _affine(builder, value, np.ones((1, 1)), addend)
    table = np.broadcast_to(addend, (builder.steps, value.channels)).copy()
    return builder.with_constants(builder.as_stream(value), table, None)


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
