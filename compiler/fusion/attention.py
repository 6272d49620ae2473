"""Attention: raw streams q, k and v in, which nothing else reads, and a code source out."""

from __future__ import annotations

from signmask.compiler.fusion.graph_builder import GraphBuilder
from signmask.compiler.fusion.operands import Operands
from signmask.compiler.fusion.value import Reject, Value
from signmask.compiler.graph import AttentionOp, Call


def attention(builder: GraphBuilder, operands: Operands, call: Call) -> Value:
    """aten.scaled_dot_product_attention without mask."""
    named = ("q", "k", "v", "attn_mask", "dropout_p", "is_causal")
    arguments = {**dict(zip(named, call.args, strict=False)), **call.kwargs}
    values = [operands.value(arguments[n]) for n in named[:3]]
    if arguments.get("attn_mask") is not None or arguments.get("is_causal"):
        raise Reject("attention is masked or causal", "use full self-attention")
    if arguments.get("dropout_p") or arguments.get("enable_gqa"):
        raise Reject("attention drops or shares heads", "use plain self-attention")
    heads = values[0].layout.heads
    if not heads or any(x.layout.dims != values[0].layout.dims for x in values):
        raise Reject(
            "q, k, v are not (N, heads, tokens, channels) of one image",
            "split heads with view and transpose",
        )
    layout = values[0].layout
    if any(value.layout.sizes["c"] != layout.sizes["c"] for value in values):
        raise Reject("q, k and v differ in width", "give them equal channels")
    streams = [value.streams for value in values]
    q, k, v = (
        builder.own_stream(value, shared=streams.count(value.streams) > 1).streams[0]
        for value in values
    )
    scale = arguments.get("scale") or (layout.sizes["c"] // heads) ** -0.5
    height, width = layout.sizes["h"], layout.sizes["w"]
    op = AttentionOp(q, k, v, heads, float(scale), layout.sizes["c"], height, width)
    return Value(layout, source=builder.add(builder.at, op))
