"""Attention constants. Needs: formats of q, k, v and of the product, and grids. Guarantees: integer
multipliers of at most 15 bits for codes, scores and products.
"""

from __future__ import annotations

from math import ceil, log2

import numpy as np

from signmask.compiler.errors import CompileError
from signmask.compiler.graph import AttentionOp
from signmask.compiler.passes.code_formats import CodeFormat, constant_format
from signmask.compiler.passes.constants import Tensors
from signmask.compiler.passes.grids import Grid
from signmask.hw.spec.network import Attention
from signmask.hw.spec.numerics import SOFTMAX_FRACTION, SOFTMAX_STEPS_PER_E
from signmask.hw.spec.widths import MULTIPLIER_BITS


def fixed_point(name: str, factor: float) -> tuple[int, int]:
    """(multiplier, shift) with multiplier * 2**-shift ~ factor, relative error below 2**-15."""
    shift = MULTIPLIER_BITS - ceil(log2(factor))
    multiplier = round(factor * 2.0**shift)
    if multiplier >= 1 << MULTIPLIER_BITS:
        multiplier, shift = (multiplier + 1) >> 1, shift - 1
    if not 0 <= shift <= 62:
        raise CompileError(
            f"'{name}' needs a factor of {factor:.3g}, beyond its multipliers; rescale "
            "the projections."
        )
    return multiplier, shift


def build_attention(
    name: str, op: AttentionOp, formats: dict[str, CodeFormat], grids: dict[str, Grid], out: str,
    tensors: Tensors,
) -> Attention:  # fmt: skip
    """The integer Attention whose result is the code source `out`; constant keys and values are
    added to `tensors` as codes."""
    scales = [formats[stream].scale for stream in op.streams]
    pairs = [fixed_point(name, grids[s].step / formats[s].scale) for s in op.streams]
    constant = {}
    if op.keys is not None and op.values is not None:
        for key, values in (("keys", op.keys), ("values", op.values)):
            form = constant_format(values)
            codes = np.clip(np.rint(values / form.scale), -127, 127).astype(np.int8)
            tensors[f"{name}.{key}"] = codes
            constant[key] = f"{name}.{key}"
            scales.append(form.scale)
            pairs.append((1, 0))
    (q_scale, k_scale, v_scale), (q, k, v) = scales, pairs
    score = fixed_point(name, q_scale * k_scale * op.scale * SOFTMAX_STEPS_PER_E)
    product = fixed_point(name, v_scale / formats[name].scale * 2.0**-SOFTMAX_FRACTION)
    return Attention(
        name=name, q=op.q, k=op.k, v=op.v, out=out, heads=op.heads,
        q_multiplier=q[0], q_shift=q[1], k_multiplier=k[0], k_shift=k[1],
        v_multiplier=v[0], v_shift=v[1], score_multiplier=score[0], score_shift=score[1],
        out_multiplier=product[0], out_shift=product[1], keys=constant.get("keys", ""),
        values=constant.get("values", ""), frames=op.frames,
    )  # fmt: skip
