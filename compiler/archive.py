"""Reading a .pt2 archive without executing anything from it.

torch.export.load unpickles parts of an archive, loads compiled libraries and evaluates symbolic
shapes. So only members of known kinds are admitted, and torch reads a copy made of what was
checked, because two readers of a ZIP file may disagree about its contents.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from signmask.compiler.errors import CompileError
from signmask.compiler.silence import quiet

MODEL = "models/model.json"
EXAMPLES = "data/sample_inputs/model.pt"
CONFIG = re.compile(r"data/(weights|constants)/model_\1_config\.json")
TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
PLAIN = {"archive_format", "archive_version", "byteorder", ".data/version",
         ".data/serialization_id"}  # fmt: skip
OPERATOR = re.compile(r"(?:torch\.ops\.)?(\w+)\.(\w+)(?:\.([A-Za-z]\w*))?")
CONTEXTS = {"wrap_with_set_grad_enabled", "wrap_with_autocast"}
FILES = {"from_file"}  # aten operators that reach files


def load_archive(path: Path) -> ExportedProgram:
    """Read a .pt2 file without unpickling anything from it; raises CompileError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CompileError(
            f"cannot read '{path}' ({error.strerror}); check the path and its permissions."
        ) from None
    try:
        checked = _checked(content, path)
        with quiet():
            return torch.export.load(io.BytesIO(checked))
    except CompileError:
        raise
    except Exception as error:  # a damaged archive fails anywhere inside torch's reader
        raise CompileError(
            f"'{path}' is not an intact .pt2 archive ({type(error).__name__}); write it again with "
            "torch.export.save."
        ) from error


def _checked(content: bytes, path: Path) -> bytes:
    """A copy of the archive, every member of which has been checked; raises CompileError or
    whatever a damaged archive gives rise to."""
    members: dict[str, bytes] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if "serialized_exported_program.json" in archive.namelist():
            raise CompileError(
                f"'{path}' is of the old .pt2 format, which needs unpickling; write it again with "
                "torch.export.save of torch 2.13 or later."
            )
        for name in archive.namelist():
            member = name.partition("/")[2]
            if member in members:
                raise zipfile.BadZipFile(f"two members '{member}'")
            members[member] = archive.read(name)  # verifies its checksum
    if MODEL not in members:
        raise zipfile.BadZipFile("no exported program")
    for member, data in members.items():
        _check_member(member, data, path)
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as archive:
        for member, data in members.items():
            archive.writestr(f"model/{member}", data)
    return copy.getvalue()


def _check_member(member: str, data: bytes, path: Path) -> None:
    if CONFIG.fullmatch(member):
        folder = member.rpartition("/")[0]
        for key, entry in json.loads(data)["config"].items():
            plain = TENSOR.fullmatch(f"{folder}/{entry['path_name']}")
            if entry["use_pickle"] is not False or not plain:
                raise CompileError(
                    f"'{path}' stores '{key}' as a pickle, which could execute code; export the "
                    "model with plain dense tensors only."
                )
    elif member == MODEL:
        _check_model(json.loads(data), path)
    elif member == EXAMPLES:
        try:
            torch.load(io.BytesIO(data), weights_only=True)
        except Exception:
            raise CompileError(
                f"'{path}' has example inputs that are not plain tensors ('{member}'); export the "
                "model with tensors as example inputs."
            ) from None
    elif member not in PLAIN and not TENSOR.fullmatch(member):
        raise CompileError(
            f"'{path}' holds '{member}', which is no part of an exported program of plain tensors; "
            "write it again with torch.export.save alone."
        )


def _check_model(model: Any, path: Path) -> None:
    """Fixed shapes, and operators on tensors alone."""
    if "expr_str" in _keys(model):
        raise CompileError(f"'{path}' has symbolic shapes; export the model with fixed shapes.")
    for target in _targets(model):
        if not _is_admitted(target):
            raise CompileError(
                f"'{path}' calls {str(target)!r}, which is no operator on tensors; build the model "
                "from torch's own operators and export it again."
            )


def _is_admitted(target: Any) -> bool:
    """Whether a target is an aten operator that torch dispatches on tensors and that reaches no
    file, an element of a result, or a region of others."""
    found = OPERATOR.fullmatch(target) if isinstance(target, str) else None
    if found is None:
        return False
    namespace, name, overload = found.groups("default")
    if namespace in ("aten", "prims"):
        full = f"{namespace}::{name}" + ("" if overload == "default" else f".{overload}")
        known: bool = torch._C._dispatch_has_kernel(full)
        return known and name not in FILES
    if namespace == "higher_order":
        return name in CONTEXTS
    return (namespace, name) in {("operator", "getitem"), ("_operator", "getitem")}


def _targets(value: Any) -> Iterator[Any]:
    """The target of every node inside nested JSON."""
    if isinstance(value, dict):
        if "target" in value and "inputs" in value:
            yield value["target"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _targets(item)


def _keys(value: Any) -> set[str]:
    """All keys inside nested JSON."""
    if isinstance(value, dict):
        return set(value).union(*map(_keys, value.values()))
    if isinstance(value, list):
        return set().union(*map(_keys, value))
    return set()
