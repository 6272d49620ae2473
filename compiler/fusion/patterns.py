"""Which operators of an exported program the accelerator executes, and how each is fused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from signmask.compiler.fusion import attention, encodings, linears, products, rearrangements
from signmask.compiler.fusion.encodings import activation, with_parameters
from signmask.compiler.fusion.graph_builder import GraphBuilder
from signmask.compiler.fusion.operands import Operands
from signmask.compiler.fusion.value import Reject, Value
from signmask.compiler.graph import Call

Fuse = Callable[[GraphBuilder, Operands, Call], Value | tuple[Value, ...]]
Kind = Literal["linear", "bilinear", "pointwise by table", "normalisation", "softmax",
               "resampling", "view"]  # fmt: skip


@dataclass(frozen=True)
class Pattern:
    """How one operator is fused: its class and, for the catalogue, how it is lowered. `check`
    raises Reject for a call whose own arguments rule it out, whatever it reads."""

    kind: Kind
    fuse: Fuse
    lowering: str
    check: Callable[[Operands, Call], None] = lambda operands, call: None


def _table(name: str) -> Pattern:
    return Pattern("pointwise by table", activation(name), f"function `{name}` of an encoding")


def _family(name: str, *defaults: tuple[str, float]) -> Pattern:
    words = ", ".join(parameter for parameter, _ in defaults)
    return Pattern(
        "pointwise by table", activation(with_parameters(name, *defaults)),
        f"function `{name}` of an encoding, any {words}",
    )  # fmt: skip


_VIEW = Pattern("view", rearrangements.view, "none: regroups dimensions")
_NOTHING = Pattern("view", rearrangements.copy, "none: a change of number format",
                   rearrangements.check_copy)  # fmt: skip
_SAME = Pattern("view", rearrangements.expand, "none: only where it repeats nothing")
_SPLIT = Pattern(
    "view", products.split, "rows of the weights that write it, or an identity operator"
)
_PARTS = "rows of the weights that write it, or an identity operator"
_MATRIX = "Linear with kernel 1, constant matrix"
_SUM = "joins the streams of both; a constant goes into tables or constants per step"
_POOL = "Linear with a group per channel"
_NEAREST = Pattern(
    "resampling", encodings.upsample, "folded into the Linear that reads it, powers of two"
)
_PAD = Pattern("resampling", encodings.pad, "zeros: the padding of the Linear", encodings.check_pad)
_UNPATCH = "none: only at the output, where the host places the pixels"

PATTERNS: dict[str, Pattern] = {
    "aten.conv2d": Pattern(
        "linear", linears.conv2d, "Linear, any groups; square, not dilated", linears.check_conv2d
    ),
    "aten.linear": Pattern("linear", linears.linear, "Linear with kernel 1"),
    "aten.matmul": Pattern("linear", linears.matmul, _MATRIX),
    "aten.mm": Pattern("linear", linears.matmul, _MATRIX),
    "aten.addmm": Pattern("linear", linears.addmm, _MATRIX),
    "aten.add": Pattern("linear", linears.add, _SUM),
    "aten.sub": Pattern("linear", linears.add, _SUM),
    "aten.rsub": Pattern("linear", linears.subtract_from, _SUM),
    "aten.neg": Pattern("linear", linears.negate, "into the weights that write it"),
    "aten.mul": Pattern(
        "bilinear", linears.multiply,
        "Product of two encodings; a constant goes into a norm, weights, or a gain per step",
    ),
    "aten.div": Pattern(
        "linear", linears.divide, "by a constant: into a norm, weights, or a gain per step",
        linears.check_divide,
    ),
    "aten.square": Pattern("bilinear", linears.square, "Product of two encodings"),
    "aten.pow": Pattern(
        "bilinear", linears.square, "exponent 2: Product of two encodings", linears.check_square
    ),
    "aten.glu": Pattern("bilinear", products.glu, "Product of two encodings"),
    "aten.cat": Pattern("view", encodings.cat, "none: an encoding reads several streams"),
    "aten.concat": Pattern("view", encodings.cat, "none: an encoding reads several streams"),
    "aten.split": _SPLIT,
    "aten.split_with_sizes": _SPLIT,
    "aten.chunk": _SPLIT,
    "aten.unbind": Pattern("view", products.unbind, _PARTS),
    "aten.slice": Pattern("view", products.slice_channels, _PARTS),
    "aten.narrow": Pattern("view", products.slice_channels, _PARTS),
    "aten.select": Pattern("view", products.select, _PARTS),
    "getitem": Pattern("view", products.part, "one result of an operator with several"),
    "aten.group_norm": Pattern(
        "normalisation", encodings.group_norm, "norm of an encoding, over groups of an image"
    ),
    "aten.instance_norm": Pattern(
        "normalisation", encodings.group_norm, "norm of an encoding, over each channel of an image",
        encodings.check_instance_norm,
    ),
    "aten.layer_norm": Pattern(
        "normalisation", encodings.layer_norm, "norm of an encoding, over a position's channels"
    ),
    "aten.rms_norm": Pattern(
        "normalisation", encodings.rms_norm, "norm of an encoding, over a position's channels"
    ),
    "aten._native_batch_norm_legit_no_training": Pattern(
        "normalisation", encodings.batch_norm, "constants per channel"
    ),
    "aten.silu": _table("silu"),
    "aten.relu": _table("relu"),
    "aten.gelu": Pattern(
        "pointwise by table", activation(encodings.gelu),
        "function `gelu` or `gelu_tanh` of an encoding",
    ),
    "signmask.quick_gelu": _table("quick_gelu"),
    "aten.sigmoid": _table("sigmoid"),
    "aten.tanh": _table("tanh"),
    "aten.mish": _table("mish"),
    "aten.hardswish": _table("hardswish"),
    "aten.hardsigmoid": _table("hardsigmoid"),
    "aten.relu6": _table("relu6"),
    "aten.softplus": _family("softplus", ("beta", 1.0), ("threshold", 20.0)),
    "aten.elu": _family("elu", ("alpha", 1.0)),
    "aten.leaky_relu": _family("leaky_relu", ("negative_slope", 0.01)),
    "aten.hardtanh": _family("hardtanh", ("min_val", -1.0), ("max_val", 1.0)),
    "aten.clamp": Pattern(
        "pointwise by table", activation(encodings.clamp),
        "function `hardtanh` of an encoding, or `relu`",
    ),
    "aten.scaled_dot_product_attention": Pattern(
        "softmax", attention.attention,
        "Attention over all positions, over frames, or cross-attention with constants",
        attention.check_attention,
    ),
    "aten.upsample_nearest2d": _NEAREST,
    "aten._upsample_nearest_exact2d": _NEAREST,
    "aten.avg_pool2d": Pattern(
        "resampling", linears.avg_pool2d, _POOL, linears.check_avg_pool2d
    ),
    "aten.adaptive_avg_pool2d": Pattern("resampling", linears.adaptive_avg_pool2d, _POOL),
    "aten.pad": _PAD,
    "aten.constant_pad_nd": _PAD,
    "aten.pixel_shuffle": Pattern("view", rearrangements.pixel_shuffle, _UNPATCH),
    "aten.einsum": Pattern(
        "view", rearrangements.einsum, "none: of one tensor; of two, only inside attention"
    ),
    "aten.view": _VIEW,
    "aten.reshape": _VIEW,
    "aten._unsafe_view": _VIEW,
    "aten.flatten": _VIEW,
    "aten.unflatten": _VIEW,
    "aten.transpose": Pattern("view", rearrangements.transpose, "none"),
    "aten.t": Pattern("view", rearrangements.transpose_matrix, "none"),
    "aten.permute": Pattern("view", rearrangements.permute, "none"),
    "aten.squeeze": Pattern("view", rearrangements.squeeze, "none"),
    "aten.unsqueeze": Pattern("view", rearrangements.unsqueeze, "none"),
    "aten.expand": _SAME,
    "aten.repeat": _SAME,
    "aten._to_copy": _NOTHING,
}  # fmt: skip


# Operators of a model that was exported as it is trained.
TRAINING = {"aten.dropout", "aten.feature_dropout", "aten.native_dropout", "aten.alpha_dropout",
            "aten.bernoulli", "aten.rrelu_with_noise"}  # fmt: skip


def pattern_of(call: Call) -> Pattern:
    """How to fuse a call; raises Reject for an operator that the accelerator lacks, and for one
    whose own arguments rule it out."""
    if call.operator in TRAINING:
        raise Reject("it drops elements at random", "call .eval() before exporting the model")
    if call.operator not in PATTERNS:
        raise Reject(
            "the accelerator has no such operation",
            "build the model from the operators of docs/operators.md",
        )
    return PATTERNS[call.operator]
