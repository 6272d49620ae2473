"""Capture. Needs: a torch module, an ExportedProgram or the path of a .pt2 file. Guarantees: a
CallGraph of ATen operators with finite parameters; nothing of a file was unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import networkx as nx
import torch
from torch.export import ExportedProgram

from signmask.compiler.archive import load_archive, quiet
from signmask.compiler.errors import CompileError
from signmask.compiler.graph import Call, CallGraph, Ref, refs
from signmask.compiler.naming import operator_names


def capture(model: Any, example_inputs: tuple[torch.Tensor, torch.Tensor] | None) -> CallGraph:
    """Export `model`, called as model(sample, timestep); raises CompileError."""
    if isinstance(model, (str, Path)):
        program = load_archive(Path(model))
    elif isinstance(model, ExportedProgram):
        program = model
    elif isinstance(model, torch.nn.Module):
        program = _export(model, example_inputs)
    else:
        raise CompileError(
            f"cannot compile a {type(model).__name__}; give a torch.nn.Module, an ExportedProgram "
            "or the path of a .pt2 file."
        )
    with quiet():
        return _to_graph(program.run_decompositions({}))


def default_example(model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Example inputs of a diffusers-style module from its config; raises CompileError."""
    config = getattr(model, "config", None)
    channels, size = getattr(config, "in_channels", None), getattr(config, "sample_size", None)
    if not channels or not size:
        raise CompileError(
            f"{type(model).__name__} does not state its input shape; pass "
            "example_inputs=(sample, timestep)."
        )
    height, width = (size, size) if isinstance(size, int) else size
    return torch.zeros(1, channels, height, width), torch.tensor([1])


def _export(model: torch.nn.Module, example: tuple | None) -> ExportedProgram:
    inputs = example if example is not None else default_example(model)
    training = model.training
    model.eval()
    try:
        with quiet():
            return torch.export.export(model, tuple(inputs), strict=False)
    except Exception as error:  # torch.export raises many unrelated types
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CompileError(
            f"torch.export cannot trace {type(model).__name__} ({first.rstrip('.')}); make its "
            "forward(sample, timestep) free of data-dependent control flow."
        ) from error
    finally:
        model.train(training)


def _to_graph(program: ExportedProgram) -> CallGraph:
    signature = program.graph_signature
    lifted = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = signature.inputs_to_lifted_tensor_constants
    names = operator_names(program)
    graph = nx.DiGraph()
    parameters: dict[str, torch.Tensor] = {}
    inputs: list[str] = []
    output = ""
    for node in program.graph.nodes:
        if node.op == "placeholder":
            if node.name in lifted or node.name in constants:
                key = lifted.get(node.name) or constants[node.name]
                tensor = program.state_dict.get(key, program.constants.get(key))
                if tensor is None:
                    raise CompileError(f"the exported program lacks '{key}'; export it again.")
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    raise CompileError(
                        f"tensor '{key}' holds NaN or infinity; repair the weights before "
                        "compiling."
                    )
                parameters[node.name] = tensor.detach()
            else:
                inputs.append(node.name)
        if node.op == "output":
            results = list(refs(_convert(node.args, names)))
            if len(results) != 1:
                raise CompileError(
                    f"the model returns {len(results)} tensors; make forward return the predicted "
                    "noise alone."
                )
            output = results[0]
            continue
        value = node.meta.get("val")
        graph.add_node(
            names[node.name],
            op=Call(
                target=node.target if node.op == "call_function" else None,
                args=_convert(node.args, names),
                kwargs=_convert(dict(node.kwargs), names),
                shape=tuple(value.shape) if isinstance(value, torch.Tensor) else (),
                trace=node.meta.get("stack_trace") or "",
            ),
        )
        for name in refs(_convert((node.args, dict(node.kwargs)), names)):
            graph.add_edge(name, names[node.name])
    if not inputs or len(inputs) > 2:
        raise CompileError(
            f"the model takes {len(inputs)} inputs; its forward must be forward(sample, timestep)."
        )
    timestep = inputs[1] if len(inputs) == 2 else ""
    example = torch.ones(1, dtype=torch.int64)
    for node in program.graph.nodes:
        if node.name == timestep and isinstance(node.meta.get("val"), torch.Tensor):
            example = torch.ones(tuple(node.meta["val"].shape), dtype=node.meta["val"].dtype)
    return CallGraph(graph, parameters, inputs[0], timestep, example, output)


def _convert(value: Any, names: Mapping[str, str]) -> Any:
    """Arguments with a Ref for each node."""
    if isinstance(value, torch.fx.Node):
        return Ref(names[value.name])
    if isinstance(value, tuple):
        return tuple(_convert(v, names) for v in value)
    if isinstance(value, list):
        return [_convert(v, names) for v in value]
    if isinstance(value, dict):
        return {k: _convert(v, names) for k, v in value.items()}
    return value
