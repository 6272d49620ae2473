"""Verilog of a component: one file per module that is emitted once, and the SRAM."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amaranth import Elaboratable
from amaranth.back import verilog
from amaranth.hdl import Fragment, Instance
from amaranth.lib.wiring import Component

from signmask.hw.errors import EmitError

VERILOG = Path(__file__).parent / "verilog"
PORT = re.compile(
    r"^  (?P<direction>input|output) (?:reg |wire )?(?:signed )?(?:\[(?P<high>\d+):0\] )?"
    r"(?P<name>\\\S+|\w+) ?;$",
    re.MULTILINE,
)

# Bits that never change, among bits of the same signal that do.
CONSTANT = re.compile(r"^  always @\*\n    ([^=\n]+ = \d+'s?h[0-9a-f]+;)$", re.MULTILINE)
# Signals without bits, which some configurations have: in Verilog this range has two.
EMPTY = re.compile(r"^  wire \[-1:0\] .*;\n", re.MULTILINE)
NEVER = "\\$never "
CELL = re.compile(r"^module .*?^endmodule$", re.MULTILINE | re.DOTALL)
MODULE = re.compile(r"^module (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Port:
    """A port of the top module; direction is "input" or "output"."""

    name: str
    width: int
    direction: str


@dataclass(frozen=True)
class Design:
    """Verilog text by file name, and the ports of the top module."""

    top: str
    sources: Mapping[str, str]
    ports: tuple[Port, ...]


def emit(component: Component, name: str) -> Design:
    """Verilog of `component` as module `name`.

    The component, or any one inside it, may have an attribute `modules`, a mapping from module
    names to components: each is emitted once, in a file of its own, for `Instance`s of that name.
    It may have an attribute `sources`, paths of further files, which are added to the design.
    Other instances must be of a module in `hw/verilog/`. Nested ports are named `outer__inner`.
    Raises EmitError for an instance of an unknown module, or two modules with one name.
    """
    waiting: dict[str, Component] = {name: component}
    sources: dict[str, str] = {}
    found: dict[str, Component] = dict(waiting)
    files: set[Path] = set()
    wanted: set[str] = set()
    while waiting:
        module, part = waiting.popitem()
        sources[f"{module}.v"], fragment = _convert(part, module)
        for piece in _fragments(fragment):
            if isinstance(piece, Instance):
                wanted.add(piece.type)
            for owner in (part, *(piece.origins or ())):
                files.update(getattr(owner, "sources", ()))
                for key, value in getattr(owner, "modules", {}).items():
                    if key not in found:
                        found[key] = waiting[key] = value
                    elif key == name:
                        raise EmitError(
                            f"module '{key}' has the name of the top; give one another name."
                        )
    known = set(found)
    for path in sorted(files):
        sources[path.name] = path.read_text(encoding="utf-8")
        known.update(MODULE.findall(sources[path.name]))
    for module in sorted(wanted - known):
        path = VERILOG / f"{module}.v"
        if not path.is_file():
            raise EmitError(
                f"design '{name}' has an instance of '{module}', which no component lists under "
                f"'modules' and hw/verilog has no file for; add one."
            )
        sources[path.name] = path.read_text(encoding="utf-8")
    return Design(name, dict(sorted(sources.items())), ports_of(sources[f"{name}.v"], name))


def ports_of(text: str, module: str) -> tuple[Port, ...]:
    """Ports of `module` in Verilog text that Amaranth wrote."""
    match = re.search(
        rf"^module {re.escape(module)}\(.*?^endmodule", text, re.MULTILINE | re.DOTALL
    )
    if match is None:
        raise EmitError(f"there is no module '{module}' in its Verilog; emit it under that name.")
    return tuple(
        Port(found["name"].lstrip("\\"), int(found["high"] or 0) + 1, found["direction"])
        for found in PORT.finditer(match[0])
    )


def _convert(component: Component, name: str) -> tuple[str, Fragment]:
    once = _Once(component)
    text = verilog.convert(once, name, emit_src=False, strip_internal_attrs=True)
    text = EMPTY.sub("", text)
    return CELL.sub(lambda module: _constants(module[0]), text), once.fragment


def _constants(module: str) -> str:
    """The module with its constant bits assigned at the start of a simulation, too: a process that
    reads nothing would never run. The generator itself helps other processes in this way."""
    changed, count = CONSTANT.subn(
        lambda bits: f"  always @* begin\n    if ({NEVER}) begin end\n    {bits[1]}\n  end", module
    )
    if not count:
        return module
    head, body = changed.split(");\n", 1)
    return f"{head});\n  reg {NEVER} = 0;\n{body}"


class _Once(Elaboratable):
    """A component elaborated once, so that `modules` may be made during elaboration."""

    def __init__(self, component: Component) -> None:
        self.component = component
        self.fragment = Fragment.get(component, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.component, name)

    def elaborate(self, platform: object) -> Fragment:
        return self.fragment


def _fragments(fragment: Fragment) -> Iterator[Fragment]:
    yield fragment
    for piece, _, _ in fragment.subfragments:
        yield from _fragments(piece)
