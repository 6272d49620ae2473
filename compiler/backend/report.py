"""The compiler's report: what is done with each layer, why, and what it is expected to cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from signmask.compiler.backend.builder import PhaseCode
from signmask.compiler.backend.context import Phase
from signmask.compiler.backend.cost import CostModel, LayerCost
from signmask.compiler.backend.layout import Layout
from signmask.compiler.delta_shares import DeltaShares, delta_shares


def layer_report(layout: Layout, emitted: Mapping[Phase, PhaseCode]) -> list[dict[str, Any]]:
    """One row per linear operator, attention and product: mode, reason, work, memory, and cycles
    and bytes of a dense step and of a differential one (`cost`; none in a dense program)."""
    network = layout.network
    assumed = network.info.get("deltas")
    knobs = network.knobs
    shares = delta_shares(network.steps, knobs.inlier_bits, knobs.dataflow)
    if assumed:
        shares = DeltaShares.from_json(assumed)
    model = CostModel(layout, shares)
    costs = {phase: model.layers(code) for phase, code in emitted.items()}
    state = _state_bytes(layout)
    rows = []
    for name in network.order:
        if name in network.linears:
            linear = network.linears[name]
            source = network.shape_of(linear.source)
            row = {
                "layer": name, "operand": linear.source, "mode": source.mode,
                "reason": source.reason, "macs": linear.macs * layout.batch,
                "weight_bytes": layout.map[f"weights/{name}"].size,
                "operand_bytes": layout.operand_words(linear.source) * layout.group,
                "state_bytes": sum(state.get(n, 0) for n in {linear.source, linear.out, name}),
            }  # fmt: skip
        elif name in network.attentions:
            attention = network.attentions[name]
            queries = layout.positions(network.streams[attention.q])
            channels = network.streams[attention.q].channels
            macs = 2 * queries * layout.key_shape(attention)[1] * channels * layout.batch
            kind = "cross-attention" if attention.keys else "attention"
            row = {
                "layer": name, "operand": ", ".join(attention.streams), "mode": "raw",
                "reason": f"{kind} works on raw codes of its operands", "macs": macs,
                "weight_bytes": 0, "operand_bytes": layout.operand_words(attention.out)
                * layout.group, "state_bytes": sum(state.get(n, 0) for n in attention.streams),
            }  # fmt: skip
        elif name in network.products:
            product = network.products[name]
            row = {
                "layer": name, "operand": f"{product.a}, {product.b}", "mode": "raw",
                "reason": "a product works on raw codes of its factors", "macs": 0,
                "weight_bytes": 0, "operand_bytes": layout.operand_words(product.out)
                * layout.group, "state_bytes": 0,
            }  # fmt: skip
        else:
            continue
        rows.append(row | _costs(name, costs) | {"assumed_deltas": shares.name})
    return rows


def _costs(name: str, costs: Mapping[Phase, Mapping[str, LayerCost]]) -> dict[str, Any]:
    """Expected cycles, bytes and limiting queue of a layer in each phase."""
    found: dict[str, Any] = {}
    for phase, layers in costs.items():
        cost = layers.get(name, LayerCost())
        found |= {
            f"{phase}_cycles": round(cost.cycles), f"{phase}_bytes": round(cost.bus_bytes),
            f"{phase}_near_data_bytes": round(cost.near_data_bytes), f"{phase}_bound": cost.bound,
        }  # fmt: skip
    return found


def _state_bytes(layout: Layout) -> dict[str, int]:
    """Bytes that differencing keeps in memory, by the name of the stream, encoding or operator."""
    found: dict[str, int] = {}
    if layout.network.knobs.dataflow == "dense":
        return found
    for region in layout.map:
        if region.kind in ("state", "delta"):
            name = region.name.split("/", 1)[-1]
            found[name] = found.get(name, 0) + region.size
    return found
