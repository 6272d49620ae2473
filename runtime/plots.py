"""Plots of a comparison, drawn from its data alone."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from signmask.runtime.errors import MissingExtra

DPI = 110
WIDTH_INCHES = 8.4
STYLES = ("-", "--", "-", "-")
WIDTHS = (("zero", ("zero",)), ("outlier or clipped", ("outlier", "clipped")))


def draw(data: dict[str, Any]) -> dict[str, bytes]:
    """PNG files by stem: "error", "widths" where differences were counted, "traffic" and "cycles"
    on a timed backend. Raises MissingExtra without matplotlib."""
    plots = {"error": error_plot(data)}
    if any(row["widths_by_step"] for row in data["dataflows"]):
        plots["widths"] = widths_plot(data)
    if any(row["traffic_bytes"] for row in data["dataflows"]):
        plots["traffic"] = traffic_plot(data)
        plots["cycles"] = cycles_plot(data)
    return plots


def error_plot(data: dict[str, Any]) -> bytes:
    """Root mean square error of the sample after each step, against fp32 and against dense."""
    figure, axes = make_figure(1, 2, 3.2)
    targets = (("rmse_vs_fp32_by_step", "against fp32"), ("rmse_vs_dense_by_step", "against dense"))
    for axis, (key, title) in zip(axes[0], targets, strict=True):
        for number, row in enumerate(data["dataflows"]):
            values = np.array(row[key])
            # Equal samples have no place on a logarithmic axis.
            values[values == 0] = np.nan
            if np.isfinite(values).any():
                steps = np.arange(1, len(values) + 1)
                style = STYLES[number % len(STYLES)]
                # Exact dataflows lie on top of each other: dashes show the one below.
                axis.semilogy(steps, values, style, color=f"C{number}", label=row["label"])
        axis.set(xlabel="steps executed", ylabel="RMS error of the sample", title=title)
        axis.grid(alpha=0.3)
        if axis.lines:
            axis.legend(fontsize=8)
    return png_bytes(figure)


def widths_plot(data: dict[str, Any]) -> bytes:
    """Share of zero and of wide differences by boundary (rows) and step (columns)."""
    rows = [row for row in data["dataflows"] if row["widths_by_step"]]
    most = max(len(row["widths_by_step"]) for row in rows)
    shares = [
        [
            np.array([_shares(c, kinds) for c in row["widths_by_step"].values()])
            for _, kinds in WIDTHS
        ]
        for row in rows
    ]
    # One scale per kind, so that the dataflows can be compared.
    tops = [max(np.nanmax(pair[i], initial=0.01) for pair in shares) for i in range(len(WIDTHS))]
    figure, axes = make_figure(len(rows), len(WIDTHS), max(2.2, 0.11 * most + 0.8) * len(rows))
    for line, row, values in zip(axes, rows, shares, strict=True):
        for axis, (title, _), matrix, top in zip(line, WIDTHS, values, tops, strict=True):
            image = axis.imshow(matrix, aspect="auto", vmin=0, vmax=top, interpolation="nearest")
            axis.set_title(f"{row['label']}: share {title}", fontsize=9)
            axis.set_xlabel("step")
            axis.xaxis.get_major_locator().set_params(integer=True)
            names = [name.removesuffix(".codes") for name in row["widths_by_step"]]
            axis.set_yticks(range(len(matrix)), names, fontsize=5)
            figure.colorbar(image, ax=axis)
    return png_bytes(figure)


def traffic_plot(data: dict[str, Any]) -> bytes:
    """Bytes by kind, stacked, one bar per dataflow."""
    rows = [row for row in data["dataflows"] if row["traffic_bytes"]]
    figure, axes = make_figure(1, 1, 3.2)
    axis = axes[0][0]
    left = np.zeros(len(rows))
    labels = [row["label"] for row in rows]
    for kind in dict.fromkeys(kind for row in rows for kind in row["traffic_bytes"]):
        size = np.array([row["traffic_bytes"].get(kind, 0) for row in rows]) / 1e6
        if size.any():
            axis.barh(labels, size, left=left, label=kind.replace("_", " "))
            left += size
    axis.invert_yaxis()
    axis.set(xlabel="MB over the run (near data: inside the memory)", title="Traffic by kind")
    axis.legend(fontsize=8, ncols=2)
    return png_bytes(figure)


def cycles_plot(data: dict[str, Any]) -> bytes:
    """Cycles of each step, summed over the batches."""
    figure, axes = make_figure(1, 1, 3.0)
    axis = axes[0][0]
    for row in data["dataflows"]:
        if row["cycles_per_step"]:
            steps = np.arange(1, len(row["cycles_per_step"]) + 1)
            axis.plot(steps, np.array(row["cycles_per_step"]) / 1e6, label=row["label"])
    axis.set(xlabel="step", ylabel="million cycles", title="Cycles by step")
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return png_bytes(figure)


def _shares(counts: dict[str, list[int]], kinds: tuple[str, ...]) -> np.ndarray:
    """Share of `kinds` among the elements of each step; undefined for dense steps."""
    elements = np.array(counts["elements"], np.float64)
    chosen = sum(np.array(counts[kind], np.float64) for kind in kinds)
    return np.divide(chosen, elements, out=np.full_like(elements, np.nan), where=elements > 0)


def make_figure(rows: int, columns: int, height: float) -> tuple[Any, np.ndarray]:
    """A figure of `height` inches and its axes (rows, columns); raises MissingExtra."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtra("matplotlib", "report", "Drawing plots") from None
    figure = Figure(figsize=(WIDTH_INCHES, height), dpi=DPI, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def png_bytes(figure: Any) -> bytes:
    """A figure as a PNG file."""
    stream = io.BytesIO()
    # Without the version, equal data give equal files.
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
