"""Names of operators as the user knows them: the module path in the model, not the exporter's
running number."""

from __future__ import annotations

from collections import Counter
from operator import getitem
from typing import Any

import torch
from torch.export import ExportedProgram

_OWN_MODULE = {"conv2d", "linear", "group_norm", "layer_norm", "rms_norm", "silu", "relu", "gelu"}


def operator_names(program: ExportedProgram) -> dict[str, str]:
    """Name by exported node name: "down_blocks.0.resnets.0.conv1" for a layer's own operator,
    "down_blocks.0.resnets.0.add" for others; numbered where a name repeats. Inputs keep theirs.
    """
    names = {node.name: node.name for node in program.graph.nodes if node.op != "call_function"}
    taken = set(names)
    repeats: Counter[str] = Counter()
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        name = label = _label(node)
        while name in taken:
            repeats[label] += 1
            name = f"{label}_{repeats[label]}"
        taken.add(name)
        names[node.name] = name
    return names


def _label(node: torch.fx.Node) -> str:
    operator = str(node.target).removeprefix("aten.").split(".")[0]
    if node.target is getitem:
        operator = f"part{node.args[1]}"
    path = _module_path(node.meta.get("nn_module_stack"))
    if not path:
        return operator
    return path if operator in _OWN_MODULE else f"{path}.{operator}"


def _module_path(stack: Any) -> str:
    """Path of the innermost module, without the root that strict export puts in front."""
    if not stack:
        return ""
    entry = list(stack.values())[-1]
    path = entry[0] if isinstance(entry, (tuple, list)) else ""
    for root in ("L['self'].", "L['self']", "self."):
        path = path.removeprefix(root)
    return str(path).replace("slice(None, None, None)", "").strip(".")
