"""Shares of changed elements that are assumed of a network whose differences nobody has counted:
those of the bundled U-Net, measured by `benchmarks/delta_shares.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from math import log
from pathlib import Path
from typing import Any

import numpy as np

MEASURED = Path(__file__).with_name("delta_shares.json")
FIELDS = ("zero", "inlier", "outlier", "outlier_deciles", "change", "correction")


@dataclass(frozen=True)
class DeltaShares:
    """What a differential step's numbers are, as shares of elements.

    Operands of linear operators, weighted by multiply-accumulates: differences that are `zero`,
    other inliers (`inlier`) and outliers; `outlier_deciles` are the means of the tenths of the
    work with the fewest to the most outliers, because layers and steps differ widely. `change`:
    changes dy of streams beyond the inliers of their format; `correction`: correction codes beyond
    inliers. `name` tells where they come from.
    """

    name: str
    zero: float
    inlier: float
    outlier: float
    outlier_deciles: tuple[float, ...]
    change: float
    correction: float

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DeltaShares:
        """Inverse of dataclasses.asdict."""
        return cls(**{**data, "outlier_deciles": tuple(data["outlier_deciles"])})


@cache
def _measured() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(MEASURED.read_text(encoding="utf-8"))
    return found


def delta_shares(steps: int, inlier_bits: int, dataflow: str) -> DeltaShares:
    """Shares for a schedule of `steps`, interpolated over the logarithm of the measured ones; of
    dataflow "restore", or else "mask"."""
    flow = "restore" if dataflow == "restore" else "mask"
    known = _measured()["shares"][flow][str(inlier_bits)]
    points = sorted(map(int, known))
    found: dict[str, Any] = {}
    for field in FIELDS:
        rows = np.array([known[str(point)][field] for point in points], np.float64)
        columns = rows.reshape(len(points), -1).T
        values = [float(np.interp(log(steps), np.log(points), column)) for column in columns]
        found[field] = tuple(values) if rows.ndim > 1 else values[0]
    return DeltaShares(f"{_measured()['model']}-{flow}-int{inlier_bits}-{steps}", **found)
