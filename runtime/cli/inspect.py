"""`signmask inspect`: what a program contains."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from signmask.hw.spec.container import Program
from signmask.hw.spec.isa import disassemble
from signmask.hw.spec.network import CodeSource, Encoding
from signmask.runtime.cli import options
from signmask.runtime.cli.compile import describe
from signmask.runtime.cli.console import out, print_json, print_table
from signmask.runtime.cli.layers import layer_table, reasons_of, totals_table


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
    plain = ("model", "config", "dataflow", "steps", "batch", "megamacs_per_step", "weights",
             "statistics")  # fmt: skip
    for name in plain:
        overview.add_row(name, str(facts[name]))
    for name in ("knobs", "hardware", "source"):
        overview.add_row(name, ", ".join(f"{k}={v}" for k, v in facts[name].items()))
    print_table(overview)
    for note in facts["notes"]:
        out.print(f"Note: {note}")
    if loaded.report:
        print_table(layer_table(loaded.report))
        reasons = reasons_of(loaded.report)
        print_table(totals_table(loaded.report))
    else:
        numbered, reasons = number_reasons(layers)
        print_table(rows_table("Boundaries", numbered))
    for number, reason in enumerate(reasons, 1):
        out.print(f"Why {number}: {reason}", markup=False)
    if loaded.memory_map:
        print_table(rows_table("Memory map", list(loaded.memory_map)))
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


def number_reasons(layers: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    """The layers with a number in place of each reason, and the reasons in that order."""
    reasons = list(dict.fromkeys(row["reason"] for row in layers if row.get("reason")))
    numbers = {reason: str(number) for number, reason in enumerate(reasons, 1)}
    rows = [{**row, "reason": numbers.get(row.get("reason", ""), "")} for row in layers]
    for row in rows:
        # The operand is named like its layer; with both, names would break in the middle.
        row.pop("operand", None)
        if "layer" in row:
            row["layer"] = row["layer"].removesuffix(".linear")
    return rows, reasons


def rows_table(title: str, rows: list[dict[str, Any]]) -> Table:
    """Dictionaries with the same keys as a table."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title, box=SIMPLE_HEAD)
    for key in keys:
        text = any(isinstance(row.get(key), str) for row in rows)
        justify: Literal["left", "right"] = "left" if text else "right"
        table.add_column(key.replace("_", "\n"), overflow="fold", justify=justify)
    for row in rows:
        table.add_row(*(cell(row.get(key, "")) for key in keys))
    return table


def cell(value: Any) -> str:
    """A short text of a value."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
