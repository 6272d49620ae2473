"""`signmask bench`: how fast things are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from signmask.runtime.cli import options
from signmask.runtime.cli.console import compile_bar, out, print_json, print_table
from signmask.runtime.errors import RunError

QUICK_CALIBRATION_IMAGES = 4

bench = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Times on this machine.")


@bench.callback()
def group() -> None:
    """Times on this machine."""


@bench.command()
def gpu(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for gpu.json and gpu.png.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer shapes, repeats and models; rougher figures.")
    ] = False,
    steps: options.Steps = 20,
    images: options.Images = 8,
    batch: Annotated[int, typer.Option(help="Images of a kernel's launch.")] = 1,
    json: options.Json = False,
) -> None:
    """Time the Triton kernels against dense libraries, and measure how empty real deltas are."""
    for name, count in (("steps", steps), ("images", images), ("batch", batch)):
        least = 2 if name == "steps" else 1
        if count < least:
            raise RunError(f"--{name} is {count}; use {least} or more.")
    if output is not None and not output.is_dir():
        raise RunError(f"folder {output} does not exist; create it or choose another with -o.")
    from signmask.runtime.build import CALIBRATION_IMAGES
    from signmask.runtime.gpu_bench.report import write_report
    from signmask.runtime.gpu_bench.study import Scope, study
    from signmask.runtime.gpu_bench.tile_rates import MODELS
    from signmask.runtime.gpu_bench.timing import QUICK_REPEATS, REPEATS, cuda_bench
    from signmask.runtime.plots import make_figure

    if output is not None:
        # Fail now rather than after minutes of measuring.
        make_figure(1, 1, 1.0)
    found = cuda_bench(QUICK_REPEATS if quick else REPEATS)
    calibration = QUICK_CALIBRATION_IMAGES if quick else CALIBRATION_IMAGES
    with compile_bar("bench gpu") as progress:
        data = study(
            found, Scope.of(quick, batch), MODELS[:1] if quick else MODELS, steps, images,
            calibration, progress,
        )  # fmt: skip
    files = [] if output is None else write_report(data, output)
    if json:
        print_json(data | {"files": [str(path) for path in files]})
        return
    show(data)
    for path in files:
        out.print(f"Wrote {path}", markup=False)


def show(data: dict[str, Any]) -> None:
    """Tables of what was measured, and one sentence where there is no device."""
    print_table(rate_table(data["tile_rates"]))
    if data["note"]:
        out.print(data["note"])
        return
    ceilings = data["ceilings"]
    print_table(product_table(data))
    print_table(pass_table(data["passes"]))
    print_table(step_table(data["steps"]))
    out.print(
        f"{data['device']}: copies {ceilings['copy'] / 1e9:,.0f} GB/s; multiplies "
        f"{ceilings['int8'] / 1e12:.0f} (int8), {ceilings['fp16'] / 1e12:.0f} (fp16), "
        f"{ceilings['bf16'] / 1e12:.0f} (bf16) tera-MAC/s."
    )


def rate_table(rows: list[dict[str, Any]]) -> Table:
    """Empty tiles of real deltas by tile size."""
    from signmask.runtime.gpu_bench.report import label_of, tile_name

    first = rows[0]
    title = f"Empty tiles of real deltas, %: {first['steps']} steps, {first['images']} images"
    table = Table(title=title, box=SIMPLE_HEAD)
    table.add_column("positions x\nchannels")
    for row in rows:
        table.add_column(label_of(row).replace(", ", "\n"), justify="right")
    table.add_row("1x1", *(percent(row["zero"]) for row in rows))
    for place, tile in enumerate(first["tiles"]):
        cells = (percent(row["tiles"][place]["empty"]) for row in rows)
        table.add_row(tile_name(tile), *cells)
    return table


def product_table(data: dict[str, Any]) -> Table:
    """By shape: dense times, our delta kernel at some shares of empty tiles, the break-even."""
    from signmask.runtime.gpu_bench.break_even import best_dense, measured
    from signmask.runtime.gpu_bench.kernels import OURS

    rows = measured(data["products"])
    shares = sorted({r["empty"] for r in data["products"] if r.get("pattern") == "tiles"})
    shares = [share for share in shares if share in (0.0, 0.6, 0.9, 0.99)]
    table = Table(title=f"Linear operators, µs: {data['device']}", box=SIMPLE_HEAD)
    table.add_column("shape", overflow="fold")
    for name in ("best dense", "", "int8 dense", *[f"delta\n{share:.0%}" for share in shares]):
        table.add_column(name, justify="right" if name else "left", overflow="fold")
    table.add_column("break-even\nskipped", justify="right")
    crossings = {r["shape"]: r["skipped"] for r in data["break_even"] if r["pattern"] == "tiles"}
    for shape, found in rows.items():
        dense = best_dense(found)
        ours = next((r for r in found if r["kernel"] == OURS), None)
        delta = {r["empty"]: r for r in found if r.get("pattern") == "tiles"}
        share = crossings.get(shape)
        table.add_row(
            shape,
            microseconds(dense),
            "-" if dense is None else dense["kernel"],
            microseconds(ours),
            *(microseconds(delta.get(empty)) for empty in shares),
            "never" if share is None else f"{share:.0%}",
        )
    return table


def pass_table(rows: list[dict[str, Any]]) -> Table:
    """Encoders and epilogues against copying."""
    table = Table(title="Encoders and epilogues", box=SIMPLE_HEAD)
    for name in ("pass", "size", "µs", "MB", "of copy bandwidth"):
        table.add_column(name, justify="left" if name in ("pass", "size") else "right")
    for row in rows:
        table.add_row(
            row["pass"], f"{row['height']}x{row['width']}x{row['channels']}", microseconds(row),
            f"{row['bytes'] / 1e6:.1f}", f"{row['share_of_copy_bandwidth']:.0%}",
        )  # fmt: skip
    return table


def step_table(rows: list[dict[str, Any]]) -> Table:
    """Times of whole steps."""
    table = Table(title="Whole steps", box=SIMPLE_HEAD)
    for name in ("model", "dataflow", "ms per step", "over dense", "note"):
        table.add_column(name, justify="right" if name in ("ms per step", "over dense") else "left")
    for row in rows:
        seconds, speedup = row["seconds_per_step"], row["speedup"]
        table.add_row(
            row["model"], row["dataflow"], "-" if seconds is None else f"{1e3 * seconds:.2f}",
            "-" if speedup is None else f"{speedup:.2f}", row["note"],
        )  # fmt: skip
    return table


def microseconds(row: dict[str, Any] | None) -> str:
    """The time of a row, or a dash."""
    return "-" if row is None or not row["seconds"] else f"{1e6 * row['seconds']:.1f}"


def percent(share: float) -> str:
    """A share in percent; a plain 0 where there is none at all."""
    return "0" if share == 0 else f"{100 * share:.3f}"
