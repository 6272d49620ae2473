"""`signmask compare`: the dataflows side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from signmask.hw.spec.config import resolve as resolve_config
from signmask.runtime.cli import options
from signmask.runtime.cli.console import compile_bar, out, print_json, print_table


def compare(
    model: options.Model,
    steps: options.Steps = 50,
    images: options.Images = 8,
    output: Annotated[
        Path | None, typer.Option("--out", help="Folder for pictures, data and the HTML report.")
    ] = None,
    config: options.Config = "nano",
    backend: options.Backend = "sim",
    batch: options.Batch = 1,
    seed: options.Seed = 0,
    scheduler: options.Scheduler = None,
    json: options.Json = False,
) -> None:
    """Run dense, restore, mask and the paper's mask, and compare them."""
    from signmask.runtime.comparison import compare_dataflows
    from signmask.runtime.files import make_folder
    from signmask.runtime.pixels import image_module
    from signmask.runtime.report import write_report
    from signmask.runtime.sources import resolve

    hardware = resolve_config(config)
    source = resolve(model, scheduler)
    if output is not None:
        # Fail now rather than after minutes of simulation.
        image_module()
        make_folder(output)
    with compile_bar(model) as progress:
        comparison = compare_dataflows(
            source, hardware, steps, images, batch, backend, seed, progress
        )
    files: list[Path] = []
    if output is not None:
        files = [*comparison.save(output), *write_report(comparison, output)]
    if json:
        print_json(comparison.data | {"files": [str(path) for path in files]})
        return
    print_table(dataflow_table(comparison.data))
    if any(row["traffic_bytes"] for row in comparison.data["dataflows"]):
        print_table(traffic_table(comparison.data))
    for path in files:
        if path.suffix == ".html":
            out.print(f"Report: {path}")
    if files:
        out.print(f"Pictures and data: {output}")


def dataflow_table(data: dict[str, Any]) -> Table:
    """Cycles and quality of each dataflow."""
    title = (
        f"{data['model']}, {data['steps']} steps, {data['images']} images, "
        f"config {data['config']}, backend {data['backend']}"
    )
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("dataflow", no_wrap=True)
    for name in (
        "Mcycles", "speedup", "array\nbusy", "bus MB", "near\nmemory\nMB",
        "PSNR fp32\ndB", "PSNR dense\ndB", "SSIM\nfp32", "SSIM\ndense",
    ):  # fmt: skip
        table.add_column(name, justify="right")
    for row in data["dataflows"]:
        bus, near = traffic_totals(row["traffic_bytes"])
        table.add_row(
            row["label"],
            number(row["cycles"], 1e6, ".2f"),
            number(row["speedup"], 1, ".2f"),
            number(row["utilisation"], 0.01, ".0f", "%"),
            number(bus, 1e6, ".1f"),
            number(near, 1e6, ".1f"),
            number(row["psnr_db_vs_fp32"], 1, ".2f"),
            "exact" if row["identical_to_dense"] else number(row["psnr_db_vs_dense"], 1, ".2f"),
            number(row["ssim_vs_fp32"], 1, ".3f"),
            number(row["ssim_vs_dense"], 1, ".3f"),
        )
    return table


def traffic_table(data: dict[str, Any]) -> Table:
    """Megabytes by kind and dataflow."""
    rows = data["dataflows"]
    table = Table(title="Traffic, MB")
    table.add_column("kind")
    for row in rows:
        table.add_column(row["label"], justify="right")
    kinds = dict.fromkeys(kind for row in rows for kind in row["traffic_bytes"] or {})
    for kind in kinds:
        cells = ((row["traffic_bytes"] or {}).get(kind, 0) for row in rows)
        table.add_row(kind, *(number(value, 1e6, ".2f") for value in cells))
    return table


def traffic_totals(traffic: dict[str, int] | None) -> tuple[int | None, int | None]:
    """Bytes on the bus, and bytes between the near-data engine and its memory."""
    if not traffic:
        return None, None
    near = traffic.get("near_data", 0)
    return sum(traffic.values()) - near, near


def number(value: float | None, unit: float, form: str, suffix: str = "") -> str:
    """A number in the given unit, or a dash."""
    return "-" if value is None else f"{value / unit:{form}}{suffix}"
