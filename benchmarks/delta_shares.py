"""Measures the shares of changed elements that the compiler assumes of other networks.

    python -m benchmarks.delta_shares compiler/delta_shares.json

The bundled model on the golden model, dataflows `restore` and `mask`, with 3, 4 and 5 bits of
inliers, in schedules of 20, 50 and 100 steps.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from signmask.hw.spec.config import NANO
from signmask.hw.spec.container import Program
from signmask.hw.spec.network import Knobs
from signmask.hw.spec.step import StepResult
from signmask.reference.golden import GoldenModel
from signmask.runtime.build import build_program
from signmask.runtime.session import Session
from signmask.runtime.sources import resolve

MODEL, IMAGES, STEPS, INLIER_BITS = "fashion-silu", 4, (20, 50, 100), (3, 4, 5)
DECIMALS = 6
TENTHS = 10


@dataclass
class Counting:
    """A backend that executes on the golden model and keeps what the steps count."""

    program: Program
    operands: list[tuple[float, Counter[str]]] = field(default_factory=list)  # MACs, elements
    wide: Counter[str] = field(default_factory=Counter)
    all: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        network = self.program.network
        self.model = GoldenModel(network, self.program.tensors, self.program.batch, self._observe)
        self.macs: Counter[str] = Counter()
        for linear in network.linears.values():
            self.macs[linear.source] += linear.macs

    def dense_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Execute."""
        return self.model.dense_step(index, codes)

    def delta_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Execute and count."""
        result = self.model.delta_step(index, codes)
        for name, counts in result.counters.items():
            if counts.get("elements") and self.macs[name]:
                self.operands.append((self.macs[name], Counter(counts)))
        return result

    def close(self) -> None:
        """Nothing is open."""

    def _observe(self, kind: str, name: str, tensor: Any) -> None:
        if kind == "dy":
            bits = self.program.network.streams[name].delta_bits
        elif kind == "corrections":
            bits = self.program.network.knobs.inlier_bits
        else:
            return
        limit = 1 << (bits - 1)
        self.wide[kind] += int(((tensor < -limit) | (tensor >= limit)).sum())
        self.all[kind] += tensor.numel()

    def shares(self) -> dict[str, float | list[float]]:
        """Fields of `compiler.delta_shares.DeltaShares` except its name."""
        weights = np.array([macs for macs, _ in self.operands], np.float64)
        found: dict[str, float | list[float]] = {}
        for kind in ("zero", "inlier", "outlier"):
            each = np.array([c[kind] / c["elements"] for _, c in self.operands])
            found[kind] = round(float(np.average(each, weights=weights)), DECIMALS)
        found["outlier_deciles"] = [round(x, DECIMALS) for x in tenths(each, weights)]
        for kind, name in (("dy", "change"), ("corrections", "correction")):
            found[name] = round(self.wide[kind] / max(self.all[kind], 1), DECIMALS)
        return found


def tenths(values: np.ndarray, weights: np.ndarray) -> list[float]:
    """Weighted means of the tenths of the weight with the smallest to the largest values."""
    order = np.argsort(values, kind="stable")
    ends = np.concatenate([[0.0], np.cumsum(weights[order]) / weights.sum()])
    sums = np.concatenate([[0.0], np.cumsum(values[order] * weights[order]) / weights.sum()])
    at = np.interp(np.linspace(0, 1, TENTHS + 1), ends, sums)
    return [float(x) for x in np.diff(at) * TENTHS]


def measure(flow: Any, bits: int, steps: int, images: int = IMAGES) -> dict[str, Any]:
    """Shares of one setting."""
    knobs = Knobs(dataflow=flow, inlier_bits=bits)
    config = replace(NANO, inlier_bits=bits)
    program = build_program(resolve(MODEL), config, knobs, steps, images)
    counting = Counting(program)
    Session(program, counting).sample(images)
    return counting.shares()


def main(arguments: Sequence[str]) -> None:
    """Write the table."""
    cases = [(f, b, s) for f in ("restore", "mask") for b in INLIER_BITS for s in STEPS]
    shares: dict[str, dict[str, dict[str, Any]]] = {}
    for flow, bits, steps in track(cases):
        found = shares.setdefault(flow, {}).setdefault(str(bits), {})
        found[str(steps)] = measure(flow, bits, steps)
    table = {"model": MODEL, "images": IMAGES, "shares": shares}
    Path(arguments[0]).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
