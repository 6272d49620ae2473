"""Tables of the compiler's report: each layer, and totals against a dense step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

Row = dict[str, Any]
DELTA_MODES = ("mask", "restore")


def totals(rows: Sequence[Row]) -> dict[str, Any]:
    """Sums over the layers of a report: `macs`, `delta_macs_share` (in operators that work on
    differences), `state_bytes`, and for each phase `*_cycles`, `*_bytes`, `*_near_data_bytes`."""
    macs = sum(row["macs"] for row in rows)
    delta = sum(row["macs"] for row in rows if row["mode"] in DELTA_MODES)
    found: dict[str, Any] = {
        "layers": len(rows), "macs": macs, "delta_macs_share": delta / macs if macs else 0.0,
        "state_bytes": sum(row["state_bytes"] for row in rows),
        "weight_bytes": sum(row["weight_bytes"] for row in rows),
    }  # fmt: skip
    for phase in ("dense", "delta"):
        for kind in ("cycles", "bytes", "near_data_bytes"):
            key = f"{phase}_{kind}"
            if any(key in row for row in rows):
                found[key] = sum(row.get(key, 0) for row in rows)
    return found


def totals_table(rows: Sequence[Row]) -> Table:
    """Layers by mode, with what a dense and a differential step are expected to take."""
    table = Table(title="Expected cost of a step, all images", box=SIMPLE_HEAD)
    for name in ("mode", "layers", "million\nMACs", "share"):
        table.add_column(name, justify="left" if name == "mode" else "right")
    differs = any("delta_cycles" in row for row in rows)
    for phase in ("dense", "delta") if differs else ("dense",):
        for kind in ("kcycles", "bus MB"):
            table.add_column(f"{phase}\n{kind}", justify="right")
    if differs:
        table.add_column("near\nMB", justify="right")
        table.add_column("state\nMB", justify="right")
    macs = max(sum(row["macs"] for row in rows), 1)
    groups = {mode: [row for row in rows if row["mode"] == mode] for mode in _modes(rows)}
    for mode, members in (*groups.items(), ("total", list(rows))):
        found = totals(members)
        cells = [
            mode, str(len(members)), f"{found['macs'] / 1e6:,.1f}", f"{found['macs'] / macs:.1%}",
            *_phase_cells(found, "dense"),
        ]  # fmt: skip
        if differs:
            cells += [
                *_phase_cells(found, "delta"), f"{found['delta_near_data_bytes'] / 1e6:.2f}",
                f"{found['state_bytes'] / 1e6:.2f}",
            ]  # fmt: skip
        if mode == "total":
            table.add_section()
        table.add_row(*cells)
    return table


def layer_table(rows: Sequence[Row]) -> Table:
    """One line for each layer, names without what all of them begin with."""
    table = Table(title="Layers", box=SIMPLE_HEAD)
    differs = any("delta_cycles" in row for row in rows)
    headings = ["layer", "mode", "why", "MMACs", "weight\nKB", "dense\nkcycles"]
    headings += ["delta\nkcycles", "limit", "bus\nKB", "state\nKB"] if differs else ["limit"]
    for heading in headings:
        text = heading in ("layer", "mode", "why", "limit")
        table.add_column(
            heading, overflow="fold", justify="left" if text else "right",
            no_wrap=heading != "layer",
        )  # fmt: skip
    names = [row["layer"].removesuffix(".linear") for row in rows]
    skipped = _common_prefix(names)
    reasons = {reason: str(i) for i, reason in enumerate(reasons_of(rows), 1)}
    for name, row in zip(names, rows, strict=True):
        cells = [
            name[skipped:], row["mode"], reasons[row["reason"]], f"{row['macs'] / 1e6:.2f}",
            f"{row['weight_bytes'] / 1e3:.1f}", f"{row.get('dense_cycles', 0) / 1e3:.1f}",
        ]  # fmt: skip
        if differs:
            cells += [
                f"{row['delta_cycles'] / 1e3:.1f}", row["delta_bound"],
                f"{row['delta_bytes'] / 1e3:.1f}", f"{row['state_bytes'] / 1e3:.1f}",
            ]  # fmt: skip
        else:
            cells.append(row.get("dense_bound", ""))
        table.add_row(*cells)
    return table


def reasons_of(rows: Sequence[Row]) -> list[str]:
    """The reasons of a report in the order in which they first appear."""
    return list(dict.fromkeys(row["reason"] for row in rows))


def _modes(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["mode"] for row in rows))


def _phase_cells(found: Row, phase: str) -> tuple[str, str]:
    return (
        f"{found.get(f'{phase}_cycles', 0) / 1e3:,.1f}",
        f"{found.get(f'{phase}_bytes', 0) / 1e6:.2f}",
    )


def _common_prefix(names: Sequence[str]) -> int:
    """Characters of whole dotted parts that every name with a dot begins with."""
    dotted = [name.split(".") for name in names if "." in name]
    if len(dotted) < 2:
        return 0
    first = dotted[0][0]
    shared = len(dotted) == len(names) and all(parts[0] == first for parts in dotted)
    return len(first) + 1 if shared else 0
