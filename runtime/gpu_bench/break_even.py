"""From which share of empty tiles on the delta kernel is faster than every dense one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from signmask.runtime.gpu_bench.kernels import DELTA

Point = tuple[float, float]  # share of tiles skipped, time relative to the best dense kernel


def measured(products: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Rows with a time, by shape."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in products:
        if row.get("seconds"):
            found.setdefault(row["shape"], []).append(row)
    return found


def best_dense(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The fastest dense row of a shape."""
    dense = [row for row in rows if row["kernel"] != DELTA]
    return min(dense, key=lambda row: row["seconds"], default=None)


def curves(products: Iterable[dict[str, Any]]) -> dict[tuple[str, str], list[Point]]:
    """Points by shape and pattern, fewest skipped tiles first."""
    found: dict[tuple[str, str], list[Point]] = {}
    for shape, rows in measured(products).items():
        dense = best_dense(rows)
        for row in rows:
            if dense is not None and row["kernel"] == DELTA:
                point = (row["skipped"], row["seconds"] / dense["seconds"])
                found.setdefault((shape, row["pattern"]), []).append(point)
    return {key: sorted(points) for key, points in found.items()}


def crossing(points: Sequence[Point]) -> float | None:
    """Share from which on the time stays at or below 1, between two points on the line through
    them; None where the last point is above."""
    if not points or points[-1][1] > 1:
        return None
    last_slow = max((n for n, (_, time) in enumerate(points) if time > 1), default=None)
    if last_slow is None:
        return points[0][0]
    (low, slow), (high, fast) = points[last_slow], points[last_slow + 1]
    return low + (high - low) * (slow - 1) / (slow - fast)


def break_evens(products: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each curve; `skipped` is null where the delta kernel is never the fastest."""
    rows = measured(products)
    found = []
    for (shape, pattern), points in curves(products).items():
        dense = best_dense(rows[shape])
        if dense is None:  # there is no curve without one
            continue
        found.append(
            {"shape": shape, "pattern": pattern, "device": dense["device"],
             "best_dense": dense["kernel"], "best_dense_seconds": dense["seconds"],
             "skipped": crossing(points)}
        )  # fmt: skip
    return found
