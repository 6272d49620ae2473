"""Quantise. Needs: a TensorGraph and its calibration. Guarantees: a Network in integers with all
its tensors, deterministic for equal input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from signmask.compiler.calibration import Calibration
from signmask.compiler.errors import CompileError
from signmask.compiler.graph import (
    AttentionOp,
    EncodingOp,
    InputOp,
    LinearOp,
    ProductOp,
    StreamOp,
    TensorGraph,
)
from signmask.compiler.passes.attention import build_attention, fixed_point
from signmask.compiler.passes.code_formats import CodeFormat, choose_formats
from signmask.compiler.passes.constants import Tensors, build_encoding, stat_shifts
from signmask.compiler.passes.grids import Grid, choose_grids
from signmask.compiler.passes.place import place_encoding, place_source
from signmask.compiler.passes.weights import QuantisedWeight, quantise_weight, spread_inputs
from signmask.hw.spec.network import (
    Attention,
    CodeSource,
    Encoding,
    Knobs,
    Linear,
    Network,
    Product,
    Stream,
)

INT32 = 2**31 - 1
DELTA_MARGIN = 3  # inlier bits of a stream's delta beyond its grid's


@dataclass
class Quantiser:
    """One quantisation: shared lookups of `build_network`."""

    graph: TensorGraph
    calibration: Calibration
    knobs: Knobs
    formats: dict[str, CodeFormat]
    grids: dict[str, Grid]
    weights: dict[str, QuantisedWeight]
    tensors: Tensors

    def source_name(self, name: str) -> str:
        """Name in the Network of what a Linear reads: attentions and products write a source of
        their own."""
        kinds = (AttentionOp, ProductOp)
        return f"{name}.codes" if isinstance(self.graph.op(name), kinds) else name

    def zero_contribution(self, name: str) -> np.ndarray:
        """Real value that the code `zero` of the source adds at inner positions, (channels,)."""
        op, quantised = self.graph.op(name), self.weights[name]
        form = self.formats[op.source]
        return form.zero * quantised.sums * quantised.scale * form.scale

    def stream(self, name: str, op: StreamOp) -> Stream:
        """The integer stream; its table holds bias, time embedding and zero points."""
        grid = self.grids[name]
        table = op.table[:, 0].copy() if op.table.shape[1] == 1 else op.table.copy()
        for linear in op.linears:
            table -= self.zero_contribution(linear)
        rounded = np.rint(table / grid.step)
        if np.abs(rounded).max() > INT32:
            raise CompileError(f"stream '{name}' has a bias beyond int32; lower grid_bits.")
        self.tensors[f"{name}.table"] = rounded.astype(np.int32)
        if op.offset is not None:
            self.tensors[f"{name}.offset"] = self.offset(name, op.offset / grid.step)
        return Stream(
            name=name, channels=op.channels, height=op.height, width=op.width, scale=grid.step,
            table=f"{name}.table", adds=tuple(op.adds), bits=grid.bits,
            delta_bits=DELTA_MARGIN + self.knobs.grid_bits,
            offset="" if op.offset is None else f"{name}.offset",
        )  # fmt: skip

    def offset(self, name: str, values: np.ndarray) -> np.ndarray:
        """A constant that varies over positions, in grid steps."""
        rounded = np.rint(values)
        if np.abs(rounded).max() > INT32:
            raise CompileError(f"stream '{name}' has a constant beyond int32; lower grid_bits.")
        return rounded.astype(np.int32)

    def product(self, name: str, op: ProductOp) -> Product:
        """The integer product, whose factors are encodings of the same names."""
        scale = self.formats[op.a].scale * self.formats[op.b].scale / self.formats[name].scale
        multiplier, shift = fixed_point(name, scale)
        return Product(name, op.a, op.b, self.source_name(name), multiplier, shift)

    def linear(self, name: str, op: LinearOp) -> Linear:
        """The integer operator and its weight."""
        quantised = self.weights[name]
        self.tensors[f"{name}.weight"] = quantised.weight
        if op.out:
            self.tensors[f"{name}.multiplier"] = quantised.multiplier
        out, kernel, _, channels = quantised.weight.shape
        spread = self.formats[op.source].spread
        inputs = channels // spread
        height, width = self.graph.out_size(op)
        return Linear(
            name=name, source=self.source_name(op.source), out=op.out, weight=f"{name}.weight",
            multiplier=f"{name}.multiplier" if op.out else "", shift=quantised.shift,
            kernel=kernel, stride=op.stride, padding=op.padding, upsample=op.upsample,
            out_channels=out, out_height=height, out_width=width,
            macs=out * kernel * kernel * inputs * height * width, groups=op.groups,
        )  # fmt: skip


def build_network(
    graph: TensorGraph, calibration: Calibration, knobs: Knobs, name: str
) -> tuple[Network, Tensors]:
    """The quantised network of `graph`; raises CompileError where a number does not fit."""
    formats = choose_formats(graph, calibration, knobs.mask_bits, knobs.group)
    grids = choose_grids(graph, calibration, formats, knobs.grid_bits)
    weights = {
        n: quantise_weight(
            n,
            spread_inputs(op.weight, formats[op.source].spread),
            formats[op.source].scale,
            grids[op.out].step if op.out else None,
        )
        for n, op in graph.of(LinearOp)
    }
    tensors: Tensors = {}
    q = Quantiser(graph, calibration, knobs, formats, grids, weights, tensors)
    sources: dict[str, CodeSource] = {}
    encodings: dict[str, Encoding] = {}
    attentions: dict[str, Attention] = {}
    products: dict[str, Product] = {}
    factors = {factor for _, op in graph.of(ProductOp) for factor in (op.a, op.b)}
    for kind in (InputOp, AttentionOp, ProductOp):
        for n, op in graph.of(kind):
            form, key = formats[n], q.source_name(n)
            source = CodeSource(
                key, op.channels * form.spread, op.height, op.width, form.scale, form.zero,
                spread=form.spread,
            )  # fmt: skip
            sources[key] = place_source(source, knobs)
    shifts = stat_shifts(graph, grids, calibration)
    for n, op in graph.of(EncodingOp):
        grid = grids[op.streams[0]]
        shift = shifts.get(n, 0)
        encoding = build_encoding(n, op, formats[n], grid, calibration, tensors, shift)
        if knobs.loop == "carry" and encoding.code_shift < knobs.carry_bits:
            raise CompileError(
                f"encoding '{n}' keeps {encoding.code_shift} fraction bits, fewer than carry_bits "
                f"{knobs.carry_bits}; lower carry_bits."
            )
        affine = (tensors[name] for name in (encoding.affine_a, encoding.affine_b) if name)
        changing = any(constants.ndim > 1 for constants in affine)
        encodings[n] = place_encoding(encoding, knobs, n in factors, changing)
    for n, op in graph.of(AttentionOp):
        attentions[n] = build_attention(n, op, formats, grids, q.source_name(n), tensors)
    for n, op in graph.of(ProductOp):
        products[n] = q.product(n, op)
    streams = {n: q.stream(n, op) for n, op in graph.of(StreamOp)}
    linears = {n: q.linear(n, op) for n, op in graph.of(LinearOp)}
    output = graph.op(graph.output)
    last = weights[graph.output]
    tensors["output_scale"] = last.scale * formats[output.source].scale
    tensors["output_table"] = output.table - q.zero_contribution(graph.output)[None]
    kinds = (EncodingOp, LinearOp, AttentionOp, ProductOp)
    network = Network(
        name=name, steps=len(graph.timesteps), timesteps=graph.timesteps, input=graph.input,
        output_scale="output_scale", output_table="output_table",
        order=tuple(n for n in graph.order() if isinstance(graph.op(n), kinds)),
        knobs=knobs, streams=streams, encodings=encodings, sources=sources, linears=linears,
        attentions=attentions, products=products, patch=graph.patch, images=graph.images,
    )  # fmt: skip
    return network, tensors
