"""`signmask run`: sample images with a program on a backend."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from signmask.hw.spec.container import Program
from signmask.runtime.cli import options
from signmask.runtime.cli.console import out, print_json, print_table, progress_bar
from signmask.runtime.errors import RunError
from signmask.runtime.files import check_folder


def run(
    program: options.ProgramFile,
    backend: options.Backend = "sim",
    images: options.Images = 1,
    seed: options.Seed = 0,
    output: Annotated[
        Path | None, typer.Option("--out", help="Folder for samples.png and samples.safetensors.")
    ] = None,
    first: Annotated[
        int | None, typer.Option(help="Execute only the first steps of the schedule.")
    ] = None,
    memory_latency: Annotated[
        int | None, typer.Option(help="Cycles from a request to its first beat, on the bus.")
    ] = None,
    near_data_latency: Annotated[
        int | None, typer.Option(help="The same between near-data engine and banks.")
    ] = None,
    stall_seed: Annotated[
        int | None,
        typer.Option(help="rtl: stall all memory channels at random; cycles then mean nothing."),
    ] = None,
    waves: Annotated[
        Path | None, typer.Option(help="rtl: write a trace of all signals (FST) to this file.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Sample images and measure the run."""
    from signmask.runtime.backend import open_rtl
    from signmask.runtime.measure import measure_run, write_samples
    from signmask.runtime.session import Session

    latencies = {"memory_latency": memory_latency, "near_data_latency": near_data_latency}
    loaded = Program.load(program)
    if output is not None:
        check_folder(output, "--out")
    chosen: dict[str, Any] = {n: cycles for n, cycles in latencies.items() if cycles is not None}
    loaded = replace(loaded, config=replace(loaded.config, **chosen))
    if backend == "rtl":
        session = Session(loaded, open_rtl(loaded, stall_seed, waves))
    elif stall_seed is not None or waves is not None:
        raise RunError(
            f"--stall-seed and --waves are of the backend 'rtl', not of '{backend}'; add "
            "--backend rtl."
        )
    else:
        session = Session(loaded, backend)
    with closing(session), progress_bar(f"sampling on {backend}") as progress:
        result = session.sample(images, seed, progress, first=first)
    with progress_bar("comparing with fp32 and dense") as progress:
        measured = measure_run(loaded, backend, result, progress)
    facts: dict[str, Any] = {"program": str(program), **measured.facts}
    if output is not None:
        facts["files"] = write_samples(output, result, measured.pixels)
    if json:
        print_json(facts)
        return
    print_table(summary(facts))
    for note in facts["notes"]:
        out.print(f"Note: {note}")
    for path in facts.get("files", []):
        out.print(f"Wrote {path}")


def summary(facts: dict[str, Any]) -> Table:
    """The figures of one run as a two-column table."""
    table = Table("figure", "value")
    for name in ("backend", "config", "dataflow", "steps", "images", "output_sha256", "cycles"):
        table.add_row(name, "-" if facts[name] is None else str(facts[name]))
    for name, unit in (("psnr_db_vs_fp32", "dB"), ("psnr_db_vs_dense", "dB")):
        value = facts[name]
        table.add_row(name, "-" if value is None else f"{value:.2f} {unit}")
    if facts["utilisation"] is not None:
        table.add_row("utilisation", f"{facts['utilisation']:.1%}")
    for kind, count in (facts["traffic_bytes"] or {}).items():
        table.add_row(f"bytes, {kind}", f"{count:,}")
    for operation in facts["host_operations"]:
        table.add_row(
            f"host: {operation['name']}",
            f"{operation['calls']} calls, {operation['elements']:,} elements, "
            f"{operation['seconds']:.3f} s",
        )
    return table
