"""`signmask inspect`: what a program contains."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from signmask.hw.spec.container import Program
from signmask.hw.spec.isa import disassemble
from signmask.hw.spec.network import CodeSource, Encoding
from signmask.runtime.cli import options
from signmask.runtime.cli.compile import describe
from signmask.runtime.cli.console import out, print_json, print_table


def inspect(
    program: options.ProgramFile,
    disassembly: Annotated[
        bool, typer.Option("--disassemble", help="Print the instructions of both phases.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Show configuration, knobs, layers and memory map of a program."""
    loaded = Program.load(program)
    layers = list(loaded.report) or placement(loaded)
    if json:
        facts = describe(loaded)
        facts |= {"layer_table": layers, "memory_map": list(loaded.memory_map)}
        if disassembly:
            facts["disassembly"] = {p: disassemble(code) for p, code in loaded.code.items()}
        print_json(facts)
        return
    facts = describe(loaded)
    overview = Table("field", "value", title=str(program))
    for name in ("model", "config", "dataflow", "steps", "batch", "megamacs_per_step"):
        overview.add_row(name, str(facts[name]))
    for name in ("knobs", "hardware", "source"):
        overview.add_row(name, ", ".join(f"{k}={v}" for k, v in facts[name].items()))
    print_table(overview)
    for title, rows in (("Layers", layers), ("Memory map", list(loaded.memory_map))):
        if rows:
            print_table(rows_table(title, rows))
    if disassembly:
        for phase, code in loaded.code.items():
            out.print(f"{phase}:", markup=False)
            for line in disassemble(code):
                out.print(f"  {line}", markup=False)


def placement(program: Program) -> list[dict[str, Any]]:
    """Boundaries and their dataflow, for a program without a compiler's report."""
    network = program.network
    boundaries: list[Encoding | CodeSource] = [
        *network.sources.values(),
        *network.encodings.values(),
    ]
    return [
        {
            "boundary": boundary.name,
            "shape": f"{boundary.channels}x{boundary.height}x{boundary.width}",
            "mode": boundary.mode,
            "reason": boundary.reason,
        }
        for boundary in boundaries
    ]


def rows_table(title: str, rows: list[dict[str, Any]]) -> Table:
    """Dictionaries with the same keys as a table."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(*keys, title=title)
    for row in rows:
        table.add_row(*(cell(row.get(key, "")) for key in keys))
    return table


def cell(value: Any) -> str:
    """A short text of a value."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
