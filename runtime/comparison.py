"""Dense, restore, mask and the paper's mask on one model: the same noise, the same backend."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as save_tensors

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.container import Program
from signmask.runtime.baseline import (
    GOLDEN_BATCH,
    FloatSamples,
    dense_key,
    sample_dense,
    sample_float,
)
from signmask.runtime.build import build_program, calibrate_source
from signmask.runtime.errors import RunError
from signmask.runtime.files import make_folder, write_whole
from signmask.runtime.host import HostScheduler
from signmask.runtime.measure import quality_facts, run_facts
from signmask.runtime.pixels import grid, png, unfold
from signmask.runtime.presets import knobs_for
from signmask.runtime.quality import error_over_steps, measure
from signmask.runtime.session import SampleResult, Session
from signmask.runtime.sources import ModelSource

FORMAT = 1
# label, dataflow, the paper's setting
FLOWS = (
    ("dense", "dense", False),
    ("restore", "restore", False),
    ("mask", "mask", False),
    ("mask --paper", "mask", True),
)
FLOAT = "fp32"
DATA_FILE, PIXEL_FILE = "comparison.json", "samples.safetensors"

Progress = Callable[[str, float], None]  # what is being done, fraction of it


@dataclass(frozen=True)
class Comparison:
    """data: everything but the images, as JSON; pixels: (images, channels, height, width) in
    [-1, 1] by label, fp32 among them."""

    data: dict[str, Any]
    pixels: dict[str, np.ndarray] = field(default_factory=dict)

    def save(self, folder: Path) -> list[Path]:
        """Write the data, the images and one picture per label into `folder`."""
        make_folder(folder)
        tensors = {name: np.ascontiguousarray(p, np.float32) for name, p in self.pixels.items()}
        files = {
            folder / DATA_FILE: json.dumps(self.data, indent=1, allow_nan=False).encode(),
            folder / PIXEL_FILE: save_tensors(tensors),
        }
        for label, pixels in self.pixels.items():
            files[folder / f"{file_stem(label)}.png"] = png(grid(pixels))
        for path, content in files.items():
            write_whole(path, content)
        return list(files)

    @classmethod
    def load(cls, folder: Path) -> Comparison:
        """Inverse of `save`; raises RunError where the folder holds no intact comparison."""
        again = "run 'signmask compare' with --out again."
        try:
            data = json.loads((folder / DATA_FILE).read_text())
            pixels = load_file(folder / PIXEL_FILE)
        except OSError as error:
            raise RunError(
                f"cannot read {error.filename or folder}: {error.strerror or error}; give a folder "
                "that 'signmask compare --out' wrote."
            ) from None
        except (ValueError, SafetensorError) as error:
            raise RunError(f"the comparison in {folder} is damaged ({error}); {again}") from None
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise RunError(f"the comparison in {folder} has another format; {again}")
        return cls(data, pixels)


def compare_dataflows(
    source: ModelSource,
    config: HardwareConfig,
    steps: int,
    images: int,
    batch: int,
    backend: str,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Compile and run every dataflow, and the fp32 model, from the same noise.

    Raises RunError, or the compiler's errors, for what cannot be compiled or run.
    """
    tell = progress or (lambda text, fraction: None)
    model = source.load()
    calibration = calibrate_source(source, steps, model, tell)
    plain: FloatSamples | None = None
    dense_runs: dict[str, SampleResult] = {}
    rows: list[dict[str, Any]] = []
    pixels: dict[str, np.ndarray] = {}
    for label, dataflow, paper in FLOWS:
        knobs, hardware = knobs_for(dataflow, config, source.relu, paper)
        program = build_program(
            source, hardware, knobs, steps, batch, model, _stage(tell, label), calibration
        )
        if backend == "reference":
            # Untimed, and an image does not depend on its batch: take the faster one.
            program = replace(program, batch=min(images, GOLDEN_BATCH))
        with closing(Session(program, backend)) as session:
            if plain is None:
                scheduler = HostScheduler.of_program(program)
                fraction = _fraction(tell, "sampling fp32")
                front = source.float_model(model)
                plain = sample_float(front, scheduler, session.shape, images, seed, fraction)
                pixels[FLOAT] = unfold(plain.images, source.unfold)
            fraction = _fraction(tell, f"running {label} on {backend}")
            result = session.sample(images, seed, fraction, trajectory=True)
        dense = _dense_run(program, label, backend, result, dense_runs, tell)
        pixels[label] = unfold(result.images, source.unfold)
        against = measure(pixels[label], unfold(dense.images, source.unfold))
        facts = run_facts(program, backend, result)
        facts |= quality_facts(measure(pixels[label], pixels[FLOAT]), against)
        facts |= _trajectory_facts(result, dense, plain, boundaries(program))
        rows.append({"label": label, **facts})
    first = rows[0]["cycles"]
    for row in rows:
        row["speedup"] = round(first / row["cycles"], 4) if first else None
    data = {
        "format": FORMAT,
        "model": source.path,
        "config": config.name,
        "hardware": config.to_json(),
        "backend": backend,
        "steps": steps,
        "timesteps": list(program.network.timesteps),
        "images": images,
        "batch": batch,
        "seed": seed,
        "scheduler": dict(source.scheduler),
        "dataflows": rows,
    }
    return Comparison(data, pixels)


def boundaries(program: Program) -> list[str]:
    """Names of the boundaries of a network (input, encodings, attention products), as executed."""
    network = program.network
    attended = {name: attention.out for name, attention in network.attentions.items()}
    names = [network.input, *(attended.get(name, name) for name in network.order)]
    return [name for name in names if name in network.encodings or name in network.sources]


def file_stem(label: str) -> str:
    """A label as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")


def _dense_run(
    program: Program,
    label: str,
    backend: str,
    result: SampleResult,
    known: dict[str, SampleResult],
    tell: Progress,
) -> SampleResult:
    """The golden dense run of the program's network, computed once for equal networks."""
    key = dense_key(program)
    if key not in known:
        if backend == "reference" and program.network.knobs.dataflow == "dense":
            known[key] = result
        else:
            images, seed = len(result.images), result.seed
            fraction = _fraction(tell, f"golden dense run for {label}")
            known[key] = sample_dense(program, images, seed, fraction)
    return known[key]


def _trajectory_facts(
    result: SampleResult, dense: SampleResult, plain: FloatSamples, order: list[str]
) -> dict[str, Any]:
    """Error after each step, and the widths of differences by boundary, in `order`, and step."""
    paths = (result.trajectory, dense.trajectory)
    if paths[0] is None or paths[1] is None:
        raise RunError("a comparison needs trajectories; sample with trajectory=True.")
    counted = result.counters
    names = [name for name in order if counted.get(name, {}).get("elements")]
    return {
        "rmse_vs_fp32_by_step": error_over_steps(paths[0], plain.trajectory),
        "rmse_vs_dense_by_step": error_over_steps(paths[0], paths[1]),
        "identical_to_dense": result.digests == dense.digests,
        "widths_by_step": {
            name: {
                kind: [step.counters.get(name, Counter())[kind] for step in result.steps]
                for kind in ("zero", "inlier", "outlier", "clipped", "elements")
            }
            for name in names
        },
    }


def _stage(tell: Progress, label: str) -> Progress:
    return lambda stage, fraction: tell(f"compiling {label}: {stage}", fraction)


def _fraction(tell: Progress, text: str) -> Callable[[int, int], None]:
    return lambda done, total: tell(text, done / total)
