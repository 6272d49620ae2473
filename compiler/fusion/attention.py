"""Attention: raw streams q, k and v in, which nothing else reads, and a code source out. In
cross-attention k and v are constants of the conditions."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from signmask.compiler.fusion.encodings import arguments_of
from signmask.compiler.fusion.graph_builder import GraphBuilder
from signmask.compiler.fusion.operands import Operands, same_at_all_steps
from signmask.compiler.fusion.value import Reject, Value
from signmask.compiler.graph import AttentionOp, Call
from signmask.compiler.layout import Layout

ARGUMENTS = ("q", "k", "v", "attn_mask", "dropout_p", "is_causal")
MASKED = -1e4  # scores that a mask lowers by this much leave no weight after softmax


def attention(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.scaled_dot_product_attention, of the sample with itself or with constants."""
    given = arguments_of(call, *ARGUMENTS)
    q = operands.value(given["q"])
    k, v = (operands.find(given[name]) for name in "kv")
    heads = q.layout.heads()
    frames = 0
    if not heads and q.layout.sizes["n"] > 1:
        heads, frames = q.layout.heads("n"), q.layout.sizes["n"]
    if not heads:
        raise Reject(
            "q is not (N, heads, tokens, channels) of all positions of each image, or of all "
            "frames at each position",
            "split heads with view and transpose, and attend over whole images or videos",
        )
    width = q.channels // heads
    scale = given.get("scale")
    scale = width**-0.5 if scale is None else float(scale)
    if (k is None) != (v is None):
        raise Reject(
            "one of k and v depends on the sample, the other does not",
            "take both from the sample or both from the conditions",
        )
    if k is None or v is None:
        if frames:
            raise Reject("frames attend to constants", "let positions attend to conditions")
        return _cross(builder, operands, q, given, scale)
    if given.get("attn_mask") is not None:
        raise Reject("attention of the sample with itself is masked", "use full attention")
    values = (q, k, v)
    if any(x.layout.dims != q.layout.dims or x.channels != q.channels for x in values):
        raise Reject("q, k and v differ in shape", "give them equal heads, tokens and channels")
    shared = [value.streams for value in values]
    a, b, c = (builder.own_stream(x, shared=shared.count(x.streams) > 1).streams[0] for x in values)
    sizes = q.layout.sizes
    op = AttentionOp(a, b, c, heads, scale, q.channels, sizes["h"], sizes["w"], frames=frames)
    builder.images = max(builder.images, frames)
    return Value(q.layout, source=builder.add(builder.at, op))


def check_attention(operands: Operands, call: Call) -> None:
    """Raise Reject for an aten.scaled_dot_product_attention that is causal, drops or shares."""
    del operands
    given = arguments_of(call, *ARGUMENTS)
    if given.get("is_causal"):
        raise Reject("attention is causal", "use full attention")
    if given.get("dropout_p"):
        raise Reject("attention drops weights at random", "call .eval() before exporting")
    if given.get("enable_gqa"):
        raise Reject("attention shares heads", "give q, k and v equal heads")


def _cross(
    builder: GraphBuilder, operands: Operands, q: Value, given: dict[str, Any], scale: float
) -> Value:
    keys, values = (_tokens(operands, given[name], q.layout) for name in "kv")
    if keys.shape != values.shape or keys.shape[-1] != q.channels:
        raise Reject("q, k and v differ in width", "give them equal heads and channels")
    kept = _kept(operands, given.get("attn_mask"), keys.shape[1])
    keys, values = keys[:, kept], values[:, kept]
    if (keys == keys[:1]).all() and (values == values[:1]).all():
        keys, values = keys[:1], values[:1]
    builder.images = max(builder.images, len(keys))
    sizes = q.layout.sizes
    stream = builder.own_stream(q, shared=False).streams[0]
    op = AttentionOp(
        stream, "", "", q.layout.heads(), scale, q.channels, sizes["h"], sizes["w"], keys, values
    )
    return Value(q.layout, source=builder.add(builder.at, op))


def _tokens(operands: Operands, argument: Any, layout: Layout) -> np.ndarray:
    """float32 (images, tokens, channels) of constant keys or values laid out like q."""
    rows = operands.rows(argument)
    if not same_at_all_steps(rows):
        raise Reject(
            "keys or values of the conditions change with the timestep",
            "compute them from the conditions alone",
        )
    array = rows[0]
    tokens, width = array.shape[-2:]
    leading = layout.dims[:-2]
    if array.ndim != len(layout.dims) or width != layout.shape[-1]:
        raise Reject("k and v are not laid out like q", "split all three into heads alike")
    array = np.broadcast_to(array, (*layout.shape[:-2], tokens, width))
    axes = [f.axis for dim in leading for f in dim]
    array = array.reshape(*(f.size for dim in leading for f in dim), tokens, width)
    for axis in "cn":  # those that have size one are missing
        if axis not in axes:
            array, axes = array[None], [axis, *axes]
    n, c = axes.index("n"), axes.index("c")
    array = array.transpose(n, 2, c, 3)
    return np.ascontiguousarray(array.reshape(len(array), tokens, -1), np.float32)


def _kept(operands: Operands, mask: Any, tokens: int) -> np.ndarray:
    """Tokens that a constant mask over keys leaves, (tokens,) bool."""
    if mask is None:
        return np.ones(tokens, bool)
    if operands.find(mask) is not None:
        raise Reject("its mask depends on the sample", "mask by conditions")
    rows = operands.rows(mask)
    rows = rows.reshape(-1, rows.shape[-1])
    if rows.shape[-1] != tokens or (rows != rows[0]).any():
        raise Reject(
            "its mask is not the same for all images, queries and timesteps",
            "leave masked tokens out of the conditions",
        )
    row = rows[0]
    boolean = operands.calls.dtype(mask.name) == torch.bool  # others are added to the scores
    kept = row != 0 if boolean else row > MASKED
    if not boolean and (row[kept] != 0).any():
        raise Reject(
            "its mask weighs tokens",
            f"add 0 for a token that counts, {MASKED:g} or less for others",
        )
    if not kept.any():
        raise Reject("its mask leaves no token", "keep at least one")
    return np.asarray(kept)
