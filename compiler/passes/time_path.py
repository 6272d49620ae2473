"""Time path. Needs: a normalised CallGraph. Guarantees: every value that depends on the timestep
alone, or on nothing, is known for each timestep of the schedule as a float64 array (steps, ...),
so that later passes see constants; the graph keeps only what depends on the sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import networkx as nx
import numpy as np
import torch

from signmask.compiler.errors import CompileError
from signmask.compiler.graph import CallGraph, refs, substitute


def fold_time_path(calls: CallGraph, timesteps: Sequence[int]) -> dict[str, np.ndarray]:
    """Evaluate the operators without the sample; returns (steps, ...) arrays by node name, for the
    nodes that operators of the sample use. Raises CompileError where a value is not finite."""
    graph = calls.graph
    varying = nx.descendants(graph, calls.sample) | {calls.sample}
    order = [n for n in nx.topological_sort(graph) if n not in varying]
    used = {
        name
        for node in varying
        for name in refs((calls.call(node).args, calls.call(node).kwargs))
        if name not in varying
    }
    rows: dict[str, list[np.ndarray]] = {name: [] for name in used if name not in calls.parameters}
    with torch.no_grad():
        for timestep in timesteps:
            values: dict[str, torch.Tensor] = dict(calls.parameters)
            if calls.timestep:
                values[calls.timestep] = torch.full_like(calls.timestep_example, timestep)
            for name in order:
                call = calls.call(name)
                if call.target is None:
                    continue
                args = substitute(call.args, values.__getitem__)
                kwargs = substitute(call.kwargs, values.__getitem__)
                values[name] = call.target(*args, **kwargs)
            for name, stored in rows.items():
                if not torch.isfinite(values[name]).all():
                    raise CompileError(
                        f"'{name}' is not finite at timestep {timestep}; check the time embedding."
                    )
                stored.append(values[name].double().numpy())
    for name in rows:
        call = calls.call(name)
        call.target, call.args, call.kwargs = None, (), {}
    graph.remove_nodes_from([n for n in order if n not in used and n != calls.timestep])
    return {name: np.stack(stored) for name, stored in rows.items()}
