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
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_leaves

from signmask.compiler.archive import load_archive
from signmask.compiler.errors import CompileError, first_line, source_line
from signmask.compiler.graph import Call, CallGraph, Ref, refs
from signmask.compiler.naming import operator_names
from signmask.compiler.silence import quiet

Example = tuple[Any, ...] | Mapping[str, Any]

SAMPLE_NAMES = ("sample", "hidden_states")
TIMESTEP_NAMES = ("timestep", "timesteps", "t")


def capture(model: Any, example_inputs: Example | None) -> CallGraph:
    """Export `model`; raises CompileError.

    `example_inputs` are (sample, timestep, *conditions), or a dict of keyword arguments, nested
    where the model takes nested dicts. Inputs besides the sample and the timestep are conditions:
    their values become constants. Of an ExportedProgram or a .pt2 file the dict holds conditions by
    input name; sample and timestep may be left out.
    """
    if isinstance(model, (str, Path)):
        program = load_archive(Path(model))
    elif isinstance(model, ExportedProgram):
        program = model
    elif isinstance(model, torch.nn.Module):
        example_inputs = default_example(model) if example_inputs is None else example_inputs
        program = _export(model, example_inputs)
    else:
        raise CompileError(
            f"cannot compile a {type(model).__name__}; give a torch.nn.Module, an ExportedProgram "
            "or the path of a .pt2 file."
        )
    program = _decomposed(program, model)
    inputs = _inputs(program)
    sample, timestep = _sample_and_timestep(inputs)
    given = _given(inputs, example_inputs)
    conditions = {n: v for n, v in inputs.items() if n not in (sample, timestep)}
    return _to_graph(program, sample, timestep, _conditions(conditions, given))


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


def _export(model: torch.nn.Module, example: Example) -> ExportedProgram:
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = {}
    # A number would be exported as a constant: the timestep must stay an input.
    if isinstance(example, Mapping):
        kwargs = {k: _tensor(v) if k in TIMESTEP_NAMES else v for k, v in example.items()}
    else:
        args = tuple(_tensor(v) if i == 1 else v for i, v in enumerate(example))
    training = model.training
    model.eval()
    try:
        with quiet():
            return torch.export.export(model, args, kwargs=kwargs, strict=False)
    except Exception as error:  # torch.export raises many unrelated types
        raise CompileError(
            f"torch.export cannot trace {type(model).__name__} ({first_line(error)}); give all its "
            "inputs in example_inputs and make its forward free of data-dependent control flow."
        ) from error
    finally:
        model.train(training)


def _decomposed(program: ExportedProgram, model: Any) -> ExportedProgram:
    """The program in ATen operators without side effects; raises CompileError."""
    try:
        with quiet():
            program = program.run_decompositions({})
    except Exception as error:  # an altered program fails anywhere inside torch
        origin = f"'{model}'" if isinstance(model, (str, Path)) else "the exported program"
        raise CompileError(
            f"{origin} cannot be evaluated ({first_line(error)}); export the model again."
        ) from error
    written = {**program.graph_signature.buffers_to_mutate,
               **program.graph_signature.user_inputs_to_mutate}  # fmt: skip
    if written:
        node = next(n for n in program.graph.nodes if n.name in written)
        line = source_line(node.meta.get("stack_trace"))
        raise CompileError(
            f"the model changes '{written[node.name]}' in every call"
            + (f" (at {line})" if line else "")
            + "; call .eval() before exporting it, and write to no buffer or input in forward."
        )
    return program


def _tensor(value: Any) -> Any:
    return torch.tensor([value]) if isinstance(value, (int, float)) else value


def _inputs(program: ExportedProgram) -> dict[str, torch.Tensor]:
    """The tensors that the program takes, by name, as torch.export knows them: without values."""
    signature = program.graph_signature
    names = {spec.arg.name for spec in signature.input_specs if spec.kind == InputKind.USER_INPUT}
    nodes = (n for n in program.graph.nodes if n.op == "placeholder" and n.name in names)
    values = {node.name: node.meta.get("val") for node in nodes}
    return {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}


def _sample_and_timestep(inputs: Mapping[str, torch.Tensor]) -> tuple[str, str]:
    """Names of both, the latter empty if the model takes none: by their names, or the first input
    and a second one of at most one dimension."""
    if not inputs:
        raise CompileError(
            "the model takes no tensor; its forward must be forward(sample, timestep)."
        )
    names = list(inputs)
    sample = next((n for n in SAMPLE_NAMES if n in inputs), names[0])
    second = next((n for n in names if n != sample and inputs[n].ndim < 2), "")
    return sample, next((n for n in TIMESTEP_NAMES if n in inputs), second)


def _given(inputs: Mapping[str, torch.Tensor], example: Example | None) -> dict[str, Any]:
    """Example inputs by the program's input names; raises CompileError for unknown names."""
    if not isinstance(example, Mapping):
        leaves = [x for x in tree_leaves(example) if isinstance(x, torch.Tensor)]
        return dict(zip(inputs, leaves, strict=False))
    given = _flattened(example)
    unknown = [n for n in given if n not in inputs]
    if unknown:
        raise CompileError(
            f"the model takes no input '{unknown[0]}'; its inputs are {', '.join(inputs)}."
        )
    return given


def _flattened(example: Mapping[str, Any], prefix: str = "") -> dict[str, torch.Tensor]:
    """Tensors of nested dicts and lists by torch.export's names: added_cond_kwargs_text_embeds."""
    found: dict[str, torch.Tensor] = {}
    for key, value in example.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= _flattened(value, f"{name}_")
        elif isinstance(value, (list, tuple)):
            found |= _flattened({str(i): x for i, x in enumerate(value)}, f"{name}_")
        elif isinstance(value, torch.Tensor):
            found[name] = value
    return found


def _conditions(
    expected: Mapping[str, torch.Tensor], given: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The value of every condition; raises CompileError with those that are missing."""
    missing = [f"{n} {tuple(v.shape)}" for n, v in expected.items() if n not in given]
    if missing:
        raise CompileError(
            f"the model takes conditions that were not given: {', '.join(missing)}; give their "
            "tensors with --conditions, or in example_inputs."
        )
    for name, value in expected.items():
        if given[name].shape != value.shape:
            raise CompileError(
                f"condition '{name}' has shape {tuple(given[name].shape)}, the exported model "
                f"takes {tuple(value.shape)}; give that shape or export again."
            )
        if not _finite(given[name]):
            raise CompileError(
                f"condition '{name}' holds NaN or infinity; repair it before compiling."
            )
    return {n: given[n].detach().to(v.dtype) for n, v in expected.items()}


def _finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity. One pass; expanded axes count once."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    for axis, stride in enumerate(tensor.stride()):
        if stride == 0:
            tensor = tensor.narrow(axis, 0, 1)
    return all(bool(torch.isfinite(x)) for x in tensor.aminmax())


def _to_graph(
    program: ExportedProgram, sample: str, timestep: str, conditions: dict[str, torch.Tensor]
) -> CallGraph:
    signature = program.graph_signature
    lifted = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    constants = signature.inputs_to_lifted_tensor_constants
    names = operator_names(program)
    graph = nx.DiGraph()
    parameters: dict[str, torch.Tensor] = {}
    output = ""
    example = torch.ones(1, dtype=torch.int64)
    for node in program.graph.nodes:
        if node.op == "placeholder":
            if node.name in lifted or node.name in constants:
                key = lifted.get(node.name) or constants[node.name]
                tensor = program.state_dict.get(key, program.constants.get(key))
                if tensor is None:
                    raise CompileError(f"the exported program lacks '{key}'; export it again.")
                if not _finite(tensor):
                    raise CompileError(
                        f"tensor '{key}' holds NaN or infinity; repair the weights before "
                        "compiling."
                    )
                parameters[node.name] = tensor.detach()
            elif node.name == timestep:
                value = node.meta["val"]
                example = torch.ones(tuple(value.shape), dtype=value.dtype)
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
                dtype=value.dtype if isinstance(value, torch.Tensor) else None,
            ),
        )
        for name in refs(_convert((node.args, dict(node.kwargs)), names)):
            graph.add_edge(name, names[node.name])
    return CallGraph(graph, parameters, sample, timestep, example, output, conditions)


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
