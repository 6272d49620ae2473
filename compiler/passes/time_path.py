"""Time path. Needs: a normalised CallGraph. Guarantees: every value that depends on the timestep
and the conditions alone, or on nothing, is known for each timestep of the schedule as a float64
array (steps, ...), so that later passes see constants; the graph keeps only what depends on the
sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np
import torch

from signmask.compiler.errors import CompileError
from signmask.compiler.graph import CallGraph, refs, substitute


def fold_time_path(calls: CallGraph, timesteps: Sequence[int]) -> dict[str, np.ndarray]:
    """Evaluate the operators without the sample; returns (steps, ...) arrays by node name, for the
    nodes that operators of the sample use. Only what depends on the timestep is evaluated at each
    of them; of other arrays all rows are one in memory. Raises CompileError where a value is not
    finite."""
    graph = calls.graph
    varying = nx.descendants(graph, calls.sample) | {calls.sample}
    timed = nx.descendants(graph, calls.timestep) if calls.timestep else set()
    order = [n for n in nx.topological_sort(graph) if n not in varying]
    used = {
        name
        for node in varying
        for name in refs((calls.call(node).args, calls.call(node).kwargs))
        if name not in varying and name not in calls.parameters
    }
    known: dict[str, Any] = {**calls.parameters, **calls.conditions}
    rows: dict[str, np.ndarray] = {}
    with torch.no_grad():
        _evaluate(calls, [n for n in order if n not in timed], known)
        for name in used - timed - {calls.timestep}:
            array = _array(name, known[name], "")
            rows[name] = np.broadcast_to(array, (len(timesteps), *array.shape))
        stored: dict[str, list[np.ndarray]] = {n: [] for n in used if n not in rows}
        for timestep in timesteps:
            values = dict(known)
            if calls.timestep:
                values[calls.timestep] = torch.full_like(calls.timestep_example, timestep)
            _evaluate(calls, [n for n in order if n in timed], values)
            for name, steps in stored.items():
                steps.append(_array(name, values[name], f" at timestep {timestep}"))
    rows |= {name: np.stack(steps) for name, steps in stored.items()}
    for name in rows:
        call = calls.call(name)
        call.target, call.args, call.kwargs = None, (), {}
    graph.remove_nodes_from([n for n in order if n not in used and n != calls.timestep])
    return rows


def _evaluate(calls: CallGraph, order: Sequence[str], values: dict[str, Any]) -> None:
    """Add the result of each call to `values`."""
    for name in order:
        call = calls.call(name)
        if call.target is not None:
            args = substitute(call.args, values.__getitem__)
            kwargs = substitute(call.kwargs, values.__getitem__)
            values[name] = call.target(*args, **kwargs)


def _array(name: str, value: torch.Tensor, when: str) -> np.ndarray:
    if not torch.isfinite(value).all():
        raise CompileError(
            f"'{name}' is not finite{when}; check the time embedding, the conditions and the "
            "weights that they meet."
        )
    return value.double().numpy()
