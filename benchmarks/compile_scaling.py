"""Compile time against depth: a U-Net with 1 to 8 times the layers in each block, without weights.

    python benchmarks/compile_scaling.py [--out FOLDER] [--config paper] [--depths 1 2 4 8]

Writes compile-scaling.json and compile-scaling.png. Times are CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from signmask.compiler.backend.lower import lower
from signmask.compiler.frontend import one_thread, quantise
from signmask.compiler.passes.capture import capture
from signmask.hw.spec.config import resolve
from signmask.runtime.architectures import architecture
from signmask.runtime.denoisers import build
from signmask.runtime.host import make_scheduler
from signmask.runtime.presets import knobs_for

STEPS = 50
STAGES = ("front half", "back end")


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds and the result of `work`."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def measure(name: str, depth: int, config: str) -> dict[str, Any]:
    """Compile architecture `name` with `depth` times its layers per block. "export" is a second
    export alone, which the front half contains."""
    found = architecture(name)
    part, (kind, shape) = next(iter(found.parts.items()))
    deeper = {**shape, "layers_per_block": depth * shape["layers_per_block"]}
    model = build(replace(found, parts={part: (kind, deeper)}), weights=False)
    knobs, hardware = knobs_for("mask", resolve(config))
    scheduler = make_scheduler(found.scheduler)
    export, calls = timed(lambda: capture(model, model.example()))
    front, (network, tensors) = timed(
        lambda: quantise(model, scheduler, STEPS, knobs, None, name, model.example())
    )
    back, program = timed(lambda: lower(network, tensors, hardware, 1))
    return {
        "depth": depth,
        "operators": len(calls.graph),
        "layers": len(network.linears),
        "instructions": sum(map(len, program.code.values())),
        "export": export,
        "seconds": dict(zip(STAGES, (front, back), strict=True)),
    }


def plot(rows: list[dict[str, Any]], title: str, path: Path) -> None:
    """Stacked seconds by stage over the number of operators, and the slope of the total."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    operators = [row["operators"] for row in rows]
    parts = [[row["seconds"][stage] for row in rows] for stage in STAGES]
    figure, axes = pyplot.subplots(figsize=(6.4, 4.0), layout="constrained")
    axes.stackplot(operators, parts, labels=STAGES, alpha=0.8)
    axes.plot(operators, np.sum(parts, axis=0), "k.-")
    axes.plot(operators, [row["export"] for row in rows], "k:", label="of it torch.export")
    axes.set_xlabel("operators of the exported model")
    axes.set_ylabel("CPU seconds")
    axes.set_title(f"{title}: total grows as operators^{exponent(rows):.2f}")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=120)


def exponent(rows: list[dict[str, Any]]) -> float:
    """Slope of log(seconds) over log(operators)."""
    total = [sum(row["seconds"].values()) for row in rows]
    slope, _ = np.polyfit(np.log([row["operators"] for row in rows]), np.log(total), 1)
    return float(slope)


def main() -> None:
    """Measure, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--config", default="paper")
    parser.add_argument("--model", default="sd-v1-4-small")
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    rows = []
    with one_thread():
        measure(options.model, 1, options.config)  # imports and caches
        for depth in options.depths:
            rows.append(measure(options.model, depth, options.config))
            print(json.dumps(rows[-1]), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    facts = {"model": options.model, "config": options.config, "rows": rows}
    (options.out / "compile-scaling.json").write_text(json.dumps(facts, indent=1) + "\n")
    plot(rows, options.model, options.out / "compile-scaling.png")


if __name__ == "__main__":
    main()
