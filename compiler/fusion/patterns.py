"""Which operators of an exported program the accelerator executes, and how each is fused."""

from __future__ import annotations

from collections.abc import Callable

from signmask.compiler.fusion.attention import attention
from signmask.compiler.fusion.encodings import activation, cat, group_norm, upsample
from signmask.compiler.fusion.graph_builder import GraphBuilder
from signmask.compiler.fusion.linears import add, conv2d, linear, scale, subtract_from
from signmask.compiler.fusion.operands import Operands
from signmask.compiler.fusion.rearrangements import copy, permute, transpose, view
from signmask.compiler.fusion.value import Reject, Value
from signmask.compiler.graph import Call

Pattern = Callable[[GraphBuilder, Operands, Call], Value]

PATTERNS: dict[str, Pattern] = {
    "aten.conv2d": conv2d,
    "aten.linear": linear,
    "aten.add": add,
    "aten.sub": add,
    "aten.rsub": subtract_from,
    "aten.mul": scale,
    "aten.div": scale,
    "aten.cat": cat,
    "aten.group_norm": group_norm,
    "aten.silu": activation,
    "aten.relu": activation,
    "aten.upsample_nearest2d": upsample,
    "aten.scaled_dot_product_attention": attention,
    "aten.view": view,
    "aten.reshape": view,
    "aten._unsafe_view": view,
    "aten.flatten": view,
    "aten.unflatten": view,
    "aten.transpose": transpose,
    "aten.permute": permute,
    "aten._to_copy": copy,
}


def pattern_of(call: Call) -> Pattern:
    """How to fuse a call; raises Reject for an operator that the accelerator lacks."""
    if call.operator not in PATTERNS:
        raise Reject(
            "the accelerator has no such operation",
            f"build the model from {', '.join(sorted(p[5:] for p in PATTERNS))}",
        )
    return PATTERNS[call.operator]
