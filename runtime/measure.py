"""Figures of a run: what `signmask run` and `signmask compare` print and store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save as save_tensors

from signmask.hw.spec.container import Program
from signmask.runtime.baseline import sample_dense, sample_float
from signmask.runtime.errors import RunError
from signmask.runtime.files import make_folder, write_whole
from signmask.runtime.host import HostScheduler
from signmask.runtime.pixels import grid, png, unfold
from signmask.runtime.quality import Quality, measure
from signmask.runtime.session import Progress, SampleResult
from signmask.runtime.sources import reopen

ARRAY = "array"  # the unit whose busy share is the utilisation


@dataclass(frozen=True)
class MeasuredRun:
    """facts: JSON object of a run; pixels: (images, channels, height, width) in [-1, 1]."""

    facts: dict[str, Any]
    pixels: np.ndarray


def measure_run(
    program: Program,
    backend: str,
    result: SampleResult,
    progress: Progress | None = None,
) -> MeasuredRun:
    """Compare a run with its fp32 model and its dense network; the first is left out, with a note,
    where the source is gone."""
    images, shape, seed = len(result.images), result.images.shape[1:], result.seed
    factor = int(program.source.get("unfold", "1"))
    pixels = unfold(result.images, factor)
    notes: list[str] = []
    against_float: Quality | None = None
    first = len(result.steps)
    if first < program.network.steps:
        notes.append(f"only the first {first} of {program.network.steps} steps were executed.")
        facts = run_facts(program, backend, result) | quality_facts(None, None)
        return MeasuredRun(facts | {"identical_to_dense": None, "notes": notes}, pixels)
    try:
        source = reopen(program.source, program.scheduler)
    except RunError as error:
        notes.append(f"no comparison with fp32: {error}")
    else:
        scheduler = HostScheduler.of_program(program)
        samples = sample_float(
            source.float_model(source.load()), scheduler, shape, images, seed, progress
        )
        against_float = measure(pixels, unfold(samples.images, factor))
    if backend == "reference" and program.network.knobs.dataflow == "dense":
        dense = result
    else:
        dense = sample_dense(program, images, seed, progress)
    against_dense = measure(pixels, unfold(dense.images, factor))
    if against_dense.identical == images:
        notes.append("every image is identical to the dense run: its PSNR is infinite (null here).")
    facts = run_facts(program, backend, result)
    facts |= quality_facts(against_float, against_dense)
    facts["identical_to_dense"] = result.digests == dense.digests
    facts["notes"] = notes
    return MeasuredRun(facts, pixels)


def quality_facts(against_float: Quality | None, against_dense: Quality | None) -> dict[str, Any]:
    """Quality as JSON: the two means by name, and all statistics; null where not measured."""
    facts: dict[str, Any] = {}
    for name, quality in (("fp32", against_float), ("dense", against_dense)):
        found = quality.to_json() if quality else None
        facts |= {
            f"psnr_db_vs_{name}": found["psnr_db_mean"] if found else None,
            f"ssim_vs_{name}": found["ssim"] if found else None,
            f"quality_vs_{name}": found,
        }
    return facts


def run_facts(program: Program, backend: str, result: SampleResult) -> dict[str, Any]:
    """Everything about a run but its quality; cycles and what follows from them are null on an
    untimed backend."""
    timed = result.cycles is not None
    return {
        "backend": backend,
        "model": program.network.name,
        "config": program.config.name,
        "dataflow": program.network.knobs.dataflow,
        "knobs": asdict(program.network.knobs),
        "steps": program.network.steps,
        "dense_steps": [record.index for record in result.steps if record.dense],
        "images": len(result.images),
        "batch": program.batch,
        "seed": result.seed,
        "output_sha256": result.output_sha256,
        "image_sha256": list(result.digests),
        "cycles": result.cycles,
        "milliseconds": milliseconds(program, result.cycles),
        "cycles_per_step": [record.cycles for record in result.steps] if timed else None,
        "utilisation": utilisation(result.cycles, result.busy),
        "busy_cycles": dict(result.busy) if timed else None,
        "traffic_bytes": dict(result.traffic) if timed else None,
        "delta_widths": delta_widths(result.counters),
        "host_operations": result.host.to_json(),
    }


def milliseconds(program: Program, cycles: int | None) -> float | None:
    """Time of that many cycles at the configuration's clock."""
    return None if cycles is None else round(cycles / program.config.frequency_mhz / 1000, 6)


def utilisation(cycles: int | None, busy: Mapping[str, int]) -> float | None:
    """Share of the cycles in which the multiplier array works."""
    return round(busy[ARRAY] / cycles, 6) if cycles and ARRAY in busy else None


def delta_widths(counters: Mapping[str, Mapping[str, int]]) -> dict[str, float] | None:
    """Shares of zero, inlier and outlier differences as they were sent, and of those that clipping
    changed; None where nothing was differenced."""
    names = ("zero", "inlier", "outlier", "clipped", "elements")
    total = {
        name: sum(c.get(name, 0) for key, c in counters.items() if key != "streams")
        for name in names
    }
    if not total["elements"]:
        return None
    return {name: round(total[name] / total["elements"], 6) for name in names[:-1]}


def write_samples(folder: Path, result: SampleResult, pixels: np.ndarray) -> list[str]:
    """Write samples.png (a grid) and samples.safetensors (`samples` float64, `pixels` float32)."""
    make_folder(folder)
    picture = png(grid(pixels))
    tensors = {"samples": result.images, "pixels": pixels.astype(np.float32)}
    paths = [folder / "samples.png", folder / "samples.safetensors"]
    write_whole(paths[0], picture)
    write_whole(paths[1], save_tensors(tensors))
    return [str(path) for path in paths]
