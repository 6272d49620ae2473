"""Time path. Needs: a normalised CallGraph. Guarantees: every value that depends on the timestep
and the conditions alone, or on nothing, is known for each timestep of the schedule as a float64
array (steps, ...), so that later passes see constants; the graph keeps only what depends on the
sample.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import networkx as nx
import numpy as np
import torch

from signmask.compiler.errors import CompileError, first_line, source_line
from signmask.compiler.graph import CallGraph, refs
from signmask.compiler.passes.repetition import evaluate, fold, one
from signmask.compiler.silence import quiet


def fold_time_path(calls: CallGraph, timesteps: Sequence[int]) -> dict[str, np.ndarray]:
    """Evaluate the operators without the sample; returns (steps, ...) arrays by node name, for the
    nodes that operators of the sample use. Only what depends on the timestep is evaluated at each
    of them; of other arrays all rows are one in memory. Raises CompileError where a value is not
    finite or cannot be evaluated, or the output does not depend on the sample."""
    graph = calls.graph
    varying = nx.descendants(graph, calls.sample) | {calls.sample}
    if calls.output not in varying:
        line = source_line(calls.call(calls.output).trace)
        raise CompileError(
            f"the output '{calls.output}'"
            + (f" at {line}" if line else "")
            + " does not depend on "
            f"the sample '{calls.sample}'; make forward compute the prediction from its first "
            "argument, or name the noisy input 'sample'."
        )
    timed = nx.descendants(graph, calls.timestep) if calls.timestep else set()
    order = [n for n in nx.topological_sort(graph) if n not in varying]
    used = {
        name
        for node in varying
        for name in refs((calls.call(node).args, calls.call(node).kwargs))
        if name not in varying and name not in calls.parameters
    }
    masks = {n for n in used if _is_mask(calls, n)}
    fixed, moving = ([n for n in order if (n in timed) == b] for b in (False, True))
    kept = {n for m in moving for n in refs((calls.call(m).args, calls.call(m).kwargs))}
    known: dict[str, Any] = {**calls.parameters, **calls.conditions}
    found: dict[str, list[np.ndarray]] = {name: [] for name in used}
    shapes: dict[str, tuple[int, ...]] = {}

    def take(name: str, value: Any, when: str = "") -> None:
        if name in found:
            if name in masks:
                value = value.clamp(min=torch.finfo(value.dtype).min)
            found[name].append(_array(name, value, when))
            shapes[name] = tuple(value.shape)

    with torch.no_grad(), quiet():
        for name, condition in calls.conditions.items():
            take(name, condition)
        _evaluate(calls, fixed, known, kept, take)
        for timestep in timesteps:
            when = f" at timestep {timestep}"
            at = partial(take, when=when)
            values = dict(known)
            if calls.timestep:
                values[calls.timestep] = torch.full_like(calls.timestep_example, timestep)
                at(calls.timestep, values[calls.timestep])
            _evaluate(calls, moving, values, (), at, when)
    rows = {n: _stacked(arrays, shapes[n], len(timesteps)) for n, arrays in found.items()}
    for name in rows:
        call = calls.call(name)
        call.target, call.args, call.kwargs = None, (), {}
    graph.remove_nodes_from([n for n in order if n not in used and n != calls.timestep])
    return rows


def _evaluate(
    calls: CallGraph, order: Sequence[str], values: dict[str, Any], kept: Collection[str],
    take: Callable[..., None], when: str = "",
) -> None:  # fmt: skip
    """Evaluate calls in order and hand each result to `take`. `values` loses what neither a later
    call nor `kept` needs. Raises CompileError where a call fails."""
    last: dict[str, str] = {}
    for name in order:
        last |= dict.fromkeys(refs((calls.call(name).args, calls.call(name).kwargs)), name)
    for name in order:
        call = calls.call(name)
        if call.target is None:
            continue
        try:
            result = evaluate(call, values.__getitem__)
        except Exception as error:  # torch raises many unrelated types
            line = source_line(call.trace)
            place = f"'{name}'" + (f" at {line}" if line else "")
            raise CompileError(
                f"{call.operator} {place} cannot be evaluated{when or ' on these conditions'} "
                f"({first_line(error)}); let the model take every timestep of the schedule, and "
                "give conditions that it takes."
            ) from error
        take(name, result)
        if name in last or name in kept:
            values[name] = result
        for operand in refs((call.args, call.kwargs)):
            if last[operand] == name and operand not in kept and operand not in calls.parameters:
                values.pop(operand, None)


def _is_mask(calls: CallGraph, name: str) -> bool:
    """Whether all that a tensor does is to be added to the scores of attentions: there minus
    infinity has a meaning."""
    readers = [calls.call(reader) for reader in calls.graph.successors(name)]
    return calls.call(name).dtype in (torch.float16, torch.bfloat16, torch.float32) and all(
        reader.operator == "aten.scaled_dot_product_attention" and name not in refs(reader.args[:3])
        for reader in readers
    )


def _array(name: str, value: torch.Tensor, when: str) -> np.ndarray:
    """float64, with size one along repeated axes. Raises CompileError where it is not finite."""
    value = one(fold(value))
    if not torch.isfinite(value).all():
        raise CompileError(
            f"'{name}' is not finite{when}; check the time embedding, the conditions and the "
            "weights that they meet."
        )
    return value.double().numpy().copy()


def _stacked(arrays: list[np.ndarray], shape: tuple[int, ...], steps: int) -> np.ndarray:
    """(steps, *shape); what is repeated takes no memory. One array stands for all steps."""
    if len({array.shape for array in arrays}) > 1:
        arrays = [np.broadcast_to(array, shape) for array in arrays]
    return np.broadcast_to(np.stack(arrays), (steps, *shape))
