"""Operators on tensors that repeat themselves along axes.

Models repeat a timestep's embedding for every image, frame and position, and compute with all the
copies. Here a repeated axis has stride 0, so that a copy takes neither memory nor time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from signmask.compiler.graph import Call, refs, substitute

ROUNDINGS = 4  # of the largest value, between copies: libraries round different rows differently


def evaluate(call: Call, read: Callable[[str], Any]) -> Any:
    """The result of a call whose operands `read` gives by name, folded where it is a tensor.

    Elementwise operators and aten.linear work on one copy; others on the whole tensor.
    """
    tensors = [v for v in map(read, refs((call.args, call.kwargs))) if isinstance(v, torch.Tensor)]
    if torch.Tag.pointwise in getattr(call.target, "tags", ()) and tensors:
        shape = torch.broadcast_shapes(*(tensor.shape for tensor in tensors))
        return fold(_call(call, lambda name: _one(read(name))).expand(shape))
    if call.operator == "aten.linear":
        rows = tensors[0]
        result = _call(call, lambda name: one(rows, -1) if read(name) is rows else read(name))
        return fold(result.expand(*rows.shape[:-1], result.shape[-1]))
    try:
        result = _call(call, read)
    except RuntimeError:  # a view of what does not lie in memory as a whole
        result = _call(call, lambda name: _whole(read(name)))
    return fold(result) if isinstance(result, torch.Tensor) else result


def fold(value: torch.Tensor) -> torch.Tensor:
    """The same tensor with stride 0 along the axes on which it does not change."""
    small = one(value)
    rounding = 0.0
    if small.is_floating_point() and small.numel():
        rounding = ROUNDINGS * torch.finfo(small.dtype).eps * float(small.abs().max())
    if not math.isfinite(rounding):
        return value
    for axis in range(value.ndim):
        if small.shape[axis] > 1:
            first = small.narrow(axis, 0, 1)
            same = (small - first).abs() <= rounding if rounding else small == first
            small = first if bool(same.all()) else small
    return value if small.shape == value.shape else small.clone().expand(value.shape)


def one(value: torch.Tensor, axes: int | None = None) -> torch.Tensor:
    """A tensor with size one along the repeated ones of its first axes (all: None)."""
    for axis, stride in enumerate(value.stride()[:axes]):
        if stride == 0:
            value = value.narrow(axis, 0, min(1, value.shape[axis]))
    return value


def _one(value: Any) -> Any:
    return one(value) if isinstance(value, torch.Tensor) else value


def _whole(value: Any) -> Any:
    return value.contiguous() if isinstance(value, torch.Tensor) else value


def _call(call: Call, read: Callable[[str], Any]) -> Any:
    return call.target(*substitute(call.args, read), **substitute(call.kwargs, read))
