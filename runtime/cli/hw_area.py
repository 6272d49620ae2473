"""`signmask hw area`: area and timing of the hardware."""

from __future__ import annotations

import importlib.util
import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from signmask.hw.spec.config import resolve
from signmask.hw.spec.files import write_whole
from signmask.runtime.cli import options
from signmask.runtime.cli.console import out, print_json, print_table, progress_bar
from signmask.runtime.errors import MissingExtra, RunError

PAGE = "area.md"
DATA = Path("data") / "area.json"


def area(
    config: options.Config = "nano",
    library: Annotated[str, typer.Option(help="Standard cells: osu018 or osu035.")] = "osu018",
    period: Annotated[float, typer.Option(help="Clock period to aim at, in ns.")] = 5.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for area.md and data/area.json.")
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder that keeps netlists, scripts and logs.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Synthesise every unit and PEs of other lane mixes, and tell area and critical paths."""
    hardware = resolve(config)
    if not 0 < period < 1000:
        raise RunError(f"a period of {period} ns is out of range; choose one of 0 to 1000 ns.")
    if output is not None and not output.is_dir():
        raise RunError(f"folder {output} does not exist; create it or choose another with -o.")
    if importlib.util.find_spec("amaranth") is None:
        raise MissingExtra("amaranth", "hw", "synthesis")
    from signmask.hw.synthesis.report import page
    from signmask.hw.synthesis.study import study
    from signmask.hw.synthesis.technology import technology

    cells = technology(library)
    with progress_bar(f"synthesising {hardware.name}") as update:
        result = study(hardware, cells, period, update, work)
    if output is not None:
        write(output / DATA, json_module.dumps(result, indent=2) + "\n")
        write(output / PAGE, page(result, command(config, library, period)))
    if json:
        print_json(result)
        return
    show(result)
    if output is not None:
        out.print(f"Written: {output / PAGE}, {output / DATA}.", markup=False)


def command(config: str, library: str, period: float) -> str:
    """The command line of a run, options with their defaults left out."""
    text = f"signmask hw area --config {config}"
    text += f" --library {library}" if library != "osu018" else ""
    return text + (f" --period {period:g}" if period != 5.0 else "")


def write(path: Path, text: str) -> None:
    """Write a file, whole or not at all; raises RunError."""
    try:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, text.encode())
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror}; choose a folder that is writable."
        ) from None


def show(result: dict[str, Any]) -> None:
    """Tables and one line on the overhead."""
    from signmask.hw.synthesis.report import (
        LANE_COLUMNS,
        UNIT_COLUMNS,
        lane_rows,
        overhead_rows,
        unit_rows,
    )

    cells = result["technology"]
    title = f"Units of {result['config']['name']}: {cells['library']}, {cells['nanometres']} nm"
    for heading, columns, rows in (
        (title, UNIT_COLUMNS, unit_rows(result)),
        ("PEs of other lane mixes", LANE_COLUMNS, lane_rows(result)),
        ("Differential parts", ("part", "um2", "of the dense one"), overhead_rows(result)),
    ):
        table = Table(title=heading, box=SIMPLE_HEAD)
        for name in columns:
            text = name in ("unit", "PE", "note", "part")
            table.add_column(name, justify="left" if text else "right", overflow="fold")
        for row in rows:
            table.add_row(*row)
        print_table(table)
    facts = result["overhead"]
    out.print(
        f"Differential parts are {100 * facts['added_over_dense']:.1f} % of the dense INT8 "
        f"accelerator's logic; as a whole, PEs included, the differential one is "
        f"{100 * facts['differential_over_dense']:+.1f} % against it. The paper states "
        f"{100 * facts['paper']['overhead']:.1f} %, SRAM included "
        f"({facts['paper']['source']}). Areas without wires and SRAM, ideal clock."
    )
