"""Grids. Needs: code formats. Guarantees: streams joined by additions or by a shared encoding have
one grid step, at most 2**-grid_bits of the finest code that reads them where that fits 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log2

import networkx as nx
import numpy as np

from signmask.compiler.calibration import Calibration
from signmask.compiler.graph import AttentionOp, EncodingOp, StreamOp, TensorGraph
from signmask.compiler.passes.code_formats import CodeFormat

HEADROOM = 2.0
COARSEST = 2  # 16 bits are kept as long as a code has at least 2**2 grid steps


@dataclass(frozen=True)
class Grid:
    """Step in real units and width of the stored integers."""

    step: float
    bits: int


def choose_grids(
    graph: TensorGraph, calibration: Calibration, formats: dict[str, CodeFormat], grid_bits: int
) -> dict[str, Grid]:
    """Grid of each stream."""
    joined = nx.Graph()
    units: dict[str, float] = {}
    for name, op in graph.of(StreamOp):
        joined.add_node(name)
        joined.add_edges_from((name, other) for other in op.adds)
    for name, op in graph.of(EncodingOp):
        joined.add_edges_from((op.streams[0], other) for other in op.streams)
        unit = formats[name].scale / _gain(name, op, calibration, formats[name])
        for stream in op.streams:
            units[stream] = min(unit, units.get(stream, unit))
    for _, op in graph.of(AttentionOp):
        for stream in op.streams:
            unit = formats[stream].scale
            units[stream] = min(unit, units.get(stream, unit))
    grids: dict[str, Grid] = {}
    for members in nx.connected_components(joined):
        extent = max(calibration.extent(m) for m in members)
        read = [units[m] for m in members if m in units]
        unit = min(read) if read else max(extent, 1e-6) / 127
        grid = _grid(unit, grid_bits, max(extent, 1e-6))
        grids.update((m, grid) for m in members)
    return grids


def _gain(name: str, op: EncodingOp, calibration: Calibration, form: CodeFormat) -> float:
    """Typical change of the activated value per change of the raw one."""
    slope = 1.0 if form.segments is None else float(np.abs(form.segments.slopes).max())
    if op.affine is not None:
        slope *= float(np.sqrt((op.affine.gain**2).mean()))
    if op.norm is None:
        return max(slope, 1e-12)
    deviation = calibration.group_deviation[name]
    per_group = np.sqrt((1 / deviation**2).mean(0))
    gamma = np.sqrt((op.norm.weight**2).reshape(-1, op.channels).mean(0))
    gamma = gamma.reshape(op.norm.groups, -1)
    return max(slope * float(np.sqrt(((gamma * per_group[:, None]) ** 2).mean())), 1e-12)


def _grid(unit: float, grid_bits: int, extent: float) -> Grid:
    step = unit * 2.0**-grid_bits
    needed = HEADROOM * extent / 32767
    if step >= needed:
        return Grid(step, 16)
    if needed <= unit * 2.0 ** -min(grid_bits, COARSEST):
        return Grid(step * 2.0 ** ceil(log2(needed / step)), 16)
    return Grid(step, 32)
