"""Normalise. Needs: a captured CallGraph. Guarantees: no operator without effect is left on the
path of the sample (metadata checks, clones, inactive dropout, multiplication or division by one,
additions of zero, contiguity), no operand is named that is not read, and no node is unreachable
from the output.
"""

from __future__ import annotations

import networkx as nx
import torch

from signmask.compiler.graph import Call, CallGraph, Ref, refs, substitute

ALIASES = {
    "aten.clone", "aten.contiguous", "aten.alias", "aten.detach", "aten.lift_fresh_copy",
    "aten.dropout", "aten.feature_dropout", "aten.identity", "aten.positive",
}  # fmt: skip


def normalise(calls: CallGraph) -> CallGraph:
    """Drop operators that change nothing, then everything that the output does not need."""
    graph = calls.graph
    alias: dict[str, str] = {}

    def resolve(name: str) -> str:
        while name in alias:
            name = alias[name]
        return name

    for name in list(nx.topological_sort(graph)):
        call: Call = graph.nodes[name]["op"]
        call.args = substitute(call.args, lambda n: Ref(resolve(n)))
        call.kwargs = substitute(call.kwargs, lambda n: Ref(resolve(n)))
        if _has_no_effect(graph, call):
            alias[name] = call.args[0].name
        if call.operator == "aten.baddbmm" and call.kwargs.get("beta", 1) == 0:
            _split_baddbmm(graph, name, call)
    output = resolve(calls.output)
    cleaned = nx.DiGraph()
    for name in graph:
        cleaned.add_node(name, op=graph.nodes[name]["op"])
    for name in graph:
        call = graph.nodes[name]["op"]
        for used in refs((call.args, call.kwargs)):
            cleaned.add_edge(used, name)
    needed = nx.ancestors(cleaned, output) | {output, calls.sample}
    if calls.timestep:
        needed.add(calls.timestep)
    cleaned.remove_nodes_from([n for n in cleaned if n not in needed])
    calls.conditions = {n: x for n, x in calls.conditions.items() if n in cleaned}
    calls.graph, calls.output = cleaned, output
    return calls


def _split_baddbmm(graph: nx.DiGraph, name: str, call: Call) -> None:
    """alpha * (a @ b) as two calls: with beta 0 the first operand, uninitialised memory as a rule,
    is not even read."""
    product = f"{name}.bmm"
    target = torch.ops.aten.bmm.default
    graph.add_node(product, op=Call(target, call.args[1:3], {}, call.shape, call.trace, call.dtype))
    call.target = torch.ops.aten.mul.Tensor
    call.args, call.kwargs = (Ref(product), call.kwargs.get("alpha", 1)), {}


def _has_no_effect(graph: nx.DiGraph, call: Call) -> bool:
    operator = call.operator
    if not call.args or not isinstance(call.args[0], Ref):
        return False
    if operator in ALIASES:
        # Dropout in training mode would be the third argument; exporting evaluates the module.
        return "dropout" not in operator or not call.args[2]
    neutral = {"aten.div": 1, "aten.mul": 1, "aten.add": 0}.get(operator)
    if neutral is None or len(call.args) != 2 or call.kwargs.get("rounding_mode"):
        return False
    number = call.args[1]
    # An operator on whole or truth values may change the format of what it gives.
    same = call.dtype == graph.nodes[call.args[0].name]["op"].dtype
    return same and isinstance(number, (int, float)) and number == neutral
