"""Files of a run: its data as JSON, and one picture drawn from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from signmask.reference.triton.layout import RUN, TILE
from signmask.runtime.files import write_whole
from signmask.runtime.gpu_bench.break_even import curves
from signmask.runtime.plots import make_figure, png_bytes

DATA_FILE, PLOT_FILE = "gpu.json", "gpu.png"
HEIGHT_INCHES = 7.2
MARKS = {"units": "o", "tiles": "s"}  # by pattern of the empty blocks
LINES = {"units": ":", "tiles": "-"}


def write_report(data: dict[str, Any], folder: Path) -> list[Path]:
    """Write both files into an existing folder, each whole or not at all; returns their paths.

    Raises MissingExtra without matplotlib, RunError where the folder is not writable.
    """
    picture = draw(data)
    files = {
        folder / DATA_FILE: (json.dumps(data, indent=1, allow_nan=False) + "\n").encode(),
        folder / PLOT_FILE: picture,
    }
    for path, content in files.items():
        write_whole(path, content)
    return list(files)


def draw(data: dict[str, Any]) -> bytes:
    """PNG: above, time of the delta kernel over that of the best dense one by share of empty tiles,
    with the shares that real deltas have; below, these shares by tile size."""
    figure, axes = make_figure(2, 1, HEIGHT_INCHES)
    draw_curves(axes[0][0], data)
    draw_rates(axes[1][0], data["tile_rates"])
    return png_bytes(figure)


def draw_curves(axis: Any, data: dict[str, Any]) -> None:
    """One colour per shape, one line per pattern; crosses mark where the kernel breaks even."""
    axis.set(
        xlabel=f"tiles skipped, % (upright lines: empty in real deltas, {RUN}x{TILE} and larger)",
        ylabel="time / best dense kernel",
        title=f"Delta kernel: {data['device']}",
        xlim=(-3, 103),
    )
    axis.grid(alpha=0.3)
    for row in data["tile_rates"]:
        for tile in row["tiles"]:
            if tile["rows"] >= RUN and tile["columns"] >= TILE:
                axis.axvline(100 * tile["empty"], color="0.4", linestyle="-.", linewidth=0.8)
    drawn = curves(data["products"])
    if not drawn:
        axis.text(50, 0.5, "not measured: no CUDA device", ha="center", va="center")
        axis.set_ylim(0, 1)
        return
    axis.axhline(1, color="black", linewidth=0.8)
    colours = {shape: f"C{n % 10}" for n, shape in enumerate(dict.fromkeys(s for s, _ in drawn))}
    for (shape, pattern), points in drawn.items():
        axis.semilogy(
            [100 * skipped for skipped, _ in points], [time for _, time in points],
            LINES[pattern] + MARKS[pattern], color=colours[shape], markersize=3,
            label=f"{shape}" if pattern == "tiles" else None,
        )  # fmt: skip
    for row in data["break_even"]:
        if row["skipped"] is not None:
            place = 100 * row["skipped"]
            axis.plot([place], [1], "x", color=colours[row["shape"]], markersize=8)
    axis.legend(fontsize=5, ncols=2)


def draw_rates(axis: Any, rows: list[dict[str, Any]]) -> None:
    """Share of empty tiles of real deltas by tile size; single elements on the left."""
    for row in rows:
        names = ["1x1", *[tile_name(tile) for tile in row["tiles"]]]
        shares = [100 * row["zero"], *[100 * tile["empty"] for tile in row["tiles"]]]
        style = "--" if row["dataflow"] == "restore" else "-"
        axis.plot(names, shares, style + "o", markersize=3, label=label_of(row))
    axis.set(
        xlabel="tile, positions x channels (mean of all delta steps, weighted by products)",
        ylabel="empty, %",
        title="Real deltas",
        ylim=(-2, 100),
    )
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def tile_name(tile: dict[str, Any]) -> str:
    """Size of a tile, as text."""
    return f"{tile['rows']}x{tile['columns']}"


def label_of(row: dict[str, Any]) -> str:
    """Model and dataflow of a row of tile rates."""
    return f"{row['model']}, {row['dataflow']}"
