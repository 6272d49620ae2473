"""Sums and products of a value with constants: folded into what follows a norm, into the weights
that write a stream, or kept as gain and offset per step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from signmask.compiler.fusion.graph_builder import GraphBuilder
from signmask.compiler.fusion.operands import Operands, same_at_all_steps
from signmask.compiler.fusion.value import Reject, Value
from signmask.compiler.graph import AffineOp

ONE, NONE = np.ones((1, 1, 1)), np.zeros((1, 1, 1))


def scaled(builder: GraphBuilder, operands: Operands, value: Value, factor: Any) -> Value:
    """`factor * value`; raises Reject."""
    rows = operands.spread(factor, value.layout)
    if rows.shape[2] > 1:
        raise Reject(
            "it scales by a constant that varies over positions", "scale whole channels only"
        )
    return multiplied(builder, value, rows[:, :, 0])


def multiplied(builder: GraphBuilder, value: Value, gain: np.ndarray) -> Value:
    """`gain * value`; `gain` is (steps or 1, images or 1, channels or 1)."""
    if _follows(value, gain):
        return _after(builder, value, gain, NONE)
    alike = same_at_all_steps(gain) and gain.shape[1] == 1
    if alike and not (value.is_linear and value.affine is not None):
        one = gain[0, 0] if gain.shape[2] > 1 else float(gain[0, 0, 0])
        stream = builder.as_stream(value, one)
        return replace(stream, exclusive=stream.exclusive and builder.used_once())
    return _affine(builder, value, gain, NONE)


def shifted(
    builder: GraphBuilder, operands: Operands, value: Value, addend: Any, sign: float = 1.0
) -> Value:
    """`value + sign * addend`; raises Reject."""
    rows = sign * operands.spread(addend, value.layout)
    alike = same_at_all_steps(rows)
    if rows.shape[2] == 1 and (rows.shape[1] == 1 or not alike):
        return added(builder, value, rows[:, :, 0])
    if not alike:
        raise Reject(
            "it adds a constant that varies over positions and over timesteps",
            "add what depends on the timestep and what depends on the position apart",
        )
    builder.images = max(builder.images, rows.shape[1])
    shape = (rows.shape[1], value.layout.positions, value.channels)
    table = np.zeros((builder.steps, 1, value.channels))
    stream = builder.as_stream(value)
    return builder.with_constants(stream, table, np.broadcast_to(rows[0], shape).copy())


def added(builder: GraphBuilder, value: Value, addend: np.ndarray) -> Value:
    """`value + addend`; `addend` is (steps or 1, images or 1, channels or 1)."""
    if _follows(value, addend):
        return _after(builder, value, ONE, addend)
    if value.is_linear and value.affine is not None:
        return _affine(builder, value, ONE, addend)
    builder.images = max(builder.images, addend.shape[1])
    shape = (builder.steps, addend.shape[1], value.channels)
    table = np.broadcast_to(addend, shape).copy()
    return builder.with_constants(builder.as_stream(value), table, None)


def _affine(builder: GraphBuilder, value: Value, gain: np.ndarray, offset: np.ndarray) -> Value:
    """gain * value + offset, both (steps or 1, images or 1, channels or 1)."""
    if not value.is_linear or value.norm is not None:
        value = builder.as_stream(value)
    if value.affine is not None:
        offset = gain * value.affine.offset + offset
        gain = gain * value.affine.gain
    images = max(gain.shape[1], offset.shape[1])
    builder.images = max(builder.images, images)
    shape = (builder.steps, images, value.channels)
    affine = AffineOp(np.broadcast_to(gain, shape).copy(), np.broadcast_to(offset, shape).copy())
    return replace(value, affine=affine, exclusive=False)


def _follows(value: Value, constant: np.ndarray) -> bool:
    """Whether a norm can take a constant that follows it. Images share the gains of a group norm;
    where they differ, what it gives becomes a stream first."""
    if not value.is_linear or value.norm is None:
        return False
    return value.norm.axis == "token" or constant.shape[1] == 1


def _after(builder: GraphBuilder, value: Value, gain: np.ndarray, offset: np.ndarray) -> Value:
    """The norm of `value` followed by gain and offset, both (steps or 1, images or 1, channels or
    1)."""
    norm = value.norm
    if norm is None:
        raise ValueError("there is no norm that could take the constants.")
    weight, bias = (x if x.ndim == 3 else x.reshape(-1, 1, x.shape[-1])
                    for x in (norm.weight, norm.bias))  # fmt: skip
    weight, bias = np.broadcast_arrays(weight * gain, bias * gain + offset)
    if weight.shape[1] > 1:
        builder.images = max(builder.images, weight.shape[1])
        shape = (builder.steps, *weight.shape[1:])
        weight, bias = np.broadcast_to(weight, shape), np.broadcast_to(bias, shape)
    else:
        weight, bias = weight[:, 0], bias[:, 0]
        if same_at_all_steps(weight) and same_at_all_steps(bias):
            weight, bias = weight[0], bias[0]
    return replace(value, norm=replace(norm, weight=weight.copy(), bias=bias.copy()))
