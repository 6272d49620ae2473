"""The import rules between the parts, held over every source file by reading its syntax tree."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("hw", "compiler", "sim", "runtime", "reference", "signmask")
USERS = ("tests", "benchmarks", "examples")  # may import any part
FORBIDDEN_ANYWHERE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
STANDARD = frozenset(sys.stdlib_module_names)
OWN = STANDARD | {"signmask", "tests", "benchmarks", "conftest"}


@dataclass(frozen=True)
class Import:
    """One imported name: its absolute dotted path and the line of the statement."""

    name: str
    line: int
    wildcard: bool = False


def imports_of(source: str, package: str) -> Iterator[Import]:
    """Every import of a module, those inside functions and `import_module("...")` included.

    `package` is the dotted package that the module lies in, against which relative imports count.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                anchor = ".".join(parents[: len(parents) - node.level + 1])
                base = f"{anchor}.{base}".rstrip(".")
            for alias in node.names:
                if alias.name == "*":
                    yield Import(base, node.lineno, wildcard=True)
                else:
                    yield Import(f"{base}.{alias.name}", node.lineno)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else None
            called = node.func.id if isinstance(node.func, ast.Name) else called
            first = node.args[0]
            if called in ("import_module", "__import__") and isinstance(first, ast.Constant):
                yield Import(str(first.value), node.lineno)


def within(name: str, *modules: str) -> bool:
    """Whether the dotted `name` is one of `modules` or lies below one."""
    return any(name == module or name.startswith(module + ".") for module in modules)


def broken_rule(path: str, found: Import) -> str | None:
    """The rule that this import breaks in the file at `path` (relative to the root), or None."""
    name, top = found.name, found.name.split(".")[0]
    if found.wildcard:
        return "no wildcard imports"
    if top in FORBIDDEN_ANYWHERE:
        return "nothing is pickled"
    in_spec, in_hw = path.startswith("hw/spec/"), path.startswith("hw/")
    if top == "amaranth" and (not in_hw or in_spec):
        return "only hw/, without hw/spec/, imports amaranth"
    if top == "triton" and not path.startswith("reference/triton/"):
        return "only reference/triton/ imports triton"
    if in_spec and not (top in STANDARD | {"numpy", "safetensors"} or within(name, *SPEC)):
        return "hw/spec/ imports the standard library, numpy, safetensors and itself"
    if path.startswith("sim/"):
        allowed = top in STANDARD | {"numpy"} or within(name, "signmask.sim", *SPEC)
        if not allowed:
            return "sim/ imports the standard library, numpy, hw/spec/ and itself"
    if path.startswith("hw/") and within(
        name, *packages("compiler", "sim", "runtime", "reference")
    ):
        return "hw/ does not import what is built on it"
    if path.startswith("reference/") and within(name, *packages("sim", "compiler", "runtime")):
        return "reference/ does not import sim/, compiler/ or runtime/"
    if path.startswith("compiler/") and within(name, *packages("runtime", "sim", "reference")):
        return "compiler/ does not import runtime/, sim/ or reference/"
    return None


SPEC = ("signmask.hw.spec",)


def packages(*folders: str) -> tuple[str, ...]:
    """The installed names of top-level folders."""
    return tuple(f"signmask.{folder}" for folder in folders)


def violations(path: str, source: str) -> list[str]:
    """One sentence for each import of the file that breaks a rule."""
    parents = [part for part in path.split("/")[:-1] if part != "signmask"]
    package = ".".join(["signmask", *parents])
    return [
        f"{path}:{found.line}: imports {found.name}; {rule}."
        for found in imports_of(source, package)
        if (rule := broken_rule(path, found)) is not None
    ]


def source_files() -> list[str]:
    """Every Python file of the project, relative to the root."""
    found = [
        file.relative_to(ROOT).as_posix()
        for folder in (*FOLDERS, *USERS)
        for file in sorted((ROOT / folder).rglob("*.py"))
    ]
    assert {path.split("/")[0] for path in found} == {*FOLDERS, *USERS}
    return found


def test_no_file_breaks_an_import_rule() -> None:
    broken = [
        sentence
        for path in source_files()
        for sentence in violations(path, (ROOT / path).read_text())
        if path.split("/")[0] not in USERS or "wildcard" in sentence or "pickled" in sentence
    ]
    assert broken == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("hw/spec/isa.py", "import torch"),
        ("hw/spec/isa.py", "from signmask.hw import pe_array"),
        ("hw/spec/isa.py", "from amaranth import Signal"),
        ("hw/spec/isa.py", "from .. import pe_array"),
        ("hw/pe_array.py", "from signmask.sim.machine import Machine"),
        ("hw/pe_array.py", "from signmask.reference.arithmetic import saturate"),
        ("hw/simulation/runner.py", "from ...reference import golden"),
        ("sim/machine.py", "from signmask.reference.golden import GoldenModel"),
        ("sim/machine.py", "from signmask import reference"),
        ("sim/machine.py", "from ..reference import golden"),
        ("sim/machine.py", "def f():\n    import torch"),
        ("sim/machine.py", "import importlib\nimportlib.import_module('torch')"),
        ("sim/machine.py", "from signmask.hw import sfu"),
        ("reference/golden.py", "from signmask.sim import machine"),
        ("reference/golden.py", "from signmask.compiler import driver"),
        ("reference/golden.py", "import signmask.runtime.session"),
        ("reference/golden.py", "import triton"),
        ("compiler/driver.py", "from signmask.runtime import session"),
        ("compiler/driver.py", "from signmask.sim import machine"),
        ("compiler/driver.py", "from signmask.reference import arithmetic"),
        ("compiler/driver.py", "import amaranth.hdl"),
        ("runtime/session.py", "from numpy import *"),
        ("runtime/session.py", "import pickle"),
        ("runtime/session.py", "from pickle import loads"),
        ("tests/test_x.py", "from signmask.hw.spec.isa import *"),
        ("benchmarks/accuracy.py", "from numpy import *"),
        ("examples/discs.py", "import pickle"),
    ],
)
def test_a_planted_violation_is_caught(path: str, source: str) -> None:
    assert len(violations(path, source)) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("hw/spec/isa.py", "import struct\nimport numpy as np\nfrom . import config"),
        ("hw/spec/isa.py", "from signmask.hw.spec.config import HardwareConfig"),
        ("hw/pe_array.py", "from amaranth import Module\nfrom .spec import config"),
        ("sim/machine.py", "from signmask.hw.spec import isa\nfrom . import sfu"),
        ("compiler/driver.py", "import torch\nfrom signmask.hw.spec import numerics"),
        ("runtime/session.py", "from signmask.sim.machine import Machine"),
        ("reference/triton/delta.py", "import triton.language as tl"),
    ],
)
def test_what_the_rules_allow_passes(path: str, source: str) -> None:
    assert violations(path, source) == []


def declared_requirements() -> set[str]:
    """Distribution names in pyproject's dependencies and extras, lower case."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = list(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        lines += extra
    return {re.split(r"[\[<>=!~ ]", line)[0].lower() for line in lines}


def test_every_imported_package_is_declared() -> None:
    distribution = {"PIL": "pillow", "cocotb_tools": "cocotb", "cocotbext": "cocotbext-axi"}
    undeclared = {
        f"{path}: {top}"
        for path in source_files()
        for found in imports_of((ROOT / path).read_text(), "signmask")
        if (top := found.name.split(".")[0]) not in OWN
        and distribution.get(top, top).lower() not in declared_requirements()
        and not (ROOT / "tests" / f"{top}.py").exists()
    }
    assert undeclared == set()


def test_the_light_parts_load_no_heavy_package() -> None:
    """`signmask`, hw/spec and sim/ start without torch, so that the base install suffices."""
    modules = ["signmask"] + [
        "signmask." + path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in source_files()
        if path.startswith(("hw/spec/", "sim/"))
    ]
    program = (
        f"import importlib, sys\nfor name in {modules!r}:\n    importlib.import_module(name)\n"
        "print(sorted({'torch', 'diffusers', 'amaranth', 'matplotlib'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (0, "[]"), run.stderr
