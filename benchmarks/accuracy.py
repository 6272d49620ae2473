"""Accuracy of every knob: `python benchmarks/accuracy.py [--model M] [--steps S]`.

Each setting is sampled with the golden model from the same noise as fp32 and as dense int8 with the
same activation segments; PSNR is paired by image, the Frechet distance is taken in the bundled
classifier's feature space to the fp32 samples and to the real test images. Results go to
docs/data/accuracy-MODEL-STEPS.json; finished settings are kept, so that a run of the same number of
images can be resumed.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from signmask.compiler.frontend import quantise
from signmask.hw.spec.config import NANO
from signmask.hw.spec.container import Program
from signmask.runtime import metrics
from signmask.runtime.baseline import sample_float
from signmask.runtime.build import calibrate_source
from signmask.runtime.host import HostScheduler, make_scheduler
from signmask.runtime.pixels import unfold
from signmask.runtime.presets import PAPER, knobs_for
from signmask.runtime.session import Session
from signmask.runtime.sources import float_model, resolve

BATCH = 16


def settings(relu: bool) -> dict[str, tuple[str, dict[str, Any]]]:
    """Dataflow and knob overrides by name: the default, then one knob at a time, then the paper's
    setting and one knob of it at a time."""
    bits = 1 if relu else 3
    mask: dict[str, dict[str, Any]] = {"mask": {}}
    mask |= {f"mask f={f}": {"grid_bits": f} for f in (0, 1, 2, 3, 5, 6)}
    mask |= {f"mask k={k}": {"inlier_bits": k} for k in (4, 5)}
    mask |= {
        f"mask k={k} clip m={m}": {"inlier_bits": k, "overflow": "clip", "full_lanes": m}
        for k, m in ((3, 1), (3, 2), (3, 4), (4, 2), (5, 2))
    }
    if not relu:
        mask |= {f"mask {b} bit": {"mask_bits": b} for b in (1, 2)}
    mask |= {f"mask norm={n}": {"norm": n} for n in ("calibrated", "live")}
    mask |= {"mask open": {"loop": "open"}}
    mask |= {f"mask carry:{r}": {"loop": "carry", "carry_bits": r} for r in (2, 4, 6)}
    mask |= {f"mask refresh {r}": {"refresh_every": r} for r in (5, 10)}
    mask |= {f"mask clip refresh {r}": {"refresh_every": r, "overflow": "clip"} for r in (5, 10)}
    paper = {**PAPER, "mask_bits": bits}
    mask |= {
        "paper": {**PAPER},
        "paper 3 bit": paper,
        "paper f=4": {**paper, "grid_bits": 4},
        "paper trend": {**paper, "norm": "trend"},
        "paper spill": {**paper, "overflow": "spill"},
        "paper closed": {**paper, "loop": "closed"},
        "paper carry:4": {**paper, "loop": "carry", "carry_bits": 4},
        "paper closed trend": {**paper, "loop": "closed", "norm": "trend"},
        "paper closed trend f=4": {**paper, "loop": "closed", "norm": "trend", "grid_bits": 4},
        "paper refresh 10": {**paper, "refresh_every": 10},
    }
    if relu:
        del mask["paper 3 bit"]
    return {name: ("mask", knobs) for name, knobs in mask.items()}


class Study:
    """Runs settings of one model and schedule."""

    def __init__(self, model: str, steps: int, images: int) -> None:
        self.source, self.steps, self.images = resolve(model), steps, images
        self.model = self.source.load()
        self.calibration = calibrate_source(self.source, steps, self.model)
        scheduler = HostScheduler(self.source.scheduler, steps)
        fp32 = sample_float(float_model(self.model), scheduler, (4, 16, 16), images, 0)
        self.fp32 = unfold(fp32.images, self.source.unfold)
        self.dense: dict[tuple[int, int], np.ndarray] = {}

    def sample(self, dataflow: str, overrides: dict[str, Any]) -> tuple[np.ndarray, Any, Any]:
        """Pixels, counters and knobs of a setting."""
        knobs, config = knobs_for(dataflow, NANO, self.source.relu, overrides=overrides)
        schedule = make_scheduler(self.source.scheduler)
        network, tensors = quantise(self.model, schedule, self.steps, knobs, self.calibration)
        program = Program(config, network, tensors, BATCH, scheduler=dict(self.source.scheduler))
        result = Session(program, "reference").sample(self.images, 0)
        return unfold(result.images, self.source.unfold), result.counters, knobs

    def dense_of(self, mask_bits: int, grid_bits: int) -> np.ndarray:
        """Dense int8 samples with the same activation segments and grid."""
        key = mask_bits, grid_bits
        if key not in self.dense:
            overrides = {"mask_bits": mask_bits, "grid_bits": grid_bits}
            self.dense[key] = self.sample("dense", overrides)[0]
        return self.dense[key]

    def row(self, dataflow: str, overrides: dict[str, Any]) -> dict[str, Any]:
        """All figures of one setting."""
        start = time.perf_counter()
        pixels, counters, knobs = self.sample(dataflow, overrides)
        dense = self.dense_of(knobs.mask_bits, knobs.grid_bits)
        to_fp32 = metrics.psnr(pixels, self.fp32)
        dense_to_fp32 = metrics.psnr(dense, self.fp32)
        deltas = [c for name, c in counters.items() if name != "streams"]
        elements = sum(c.get("elements", 0) for c in deltas)
        shares = {
            key: sum(c.get(key, 0) for c in deltas) / max(elements, 1)
            for key in ("zero", "inlier", "outlier", "clipped", "segment_changes")
        }
        return {
            "knobs": asdict(knobs),
            "images": len(pixels),
            "psnr_mean": float(to_fp32.mean()),
            "psnr_median": float(np.median(to_fp32)),
            "dense_psnr_mean": float(dense_to_fp32.mean()),
            "dense_psnr_median": float(np.median(dense_to_fp32)),
            "difference_mean": float((to_fp32 - dense_to_fp32).mean()),
            "difference_error": float((to_fp32 - dense_to_fp32).std(ddof=1) / len(to_fp32) ** 0.5),
            "frechet_real": metrics.frechet(pixels),
            "frechet_fp32": metrics.frechet(pixels, self.fp32),
            "dense_frechet_real": metrics.frechet(dense),
            "recognisable": metrics.recognisable(pixels),
            "shares": shares,
            "seconds": time.perf_counter() - start,
        }


def recorded(path: Path, images: int) -> dict[str, Any]:
    """What the results file holds; ends the program where that is of another number of images."""
    if not path.exists():
        return {"settings": {}}
    data: dict[str, Any] = json.loads(path.read_text())
    counts = {row.get("images", data.get("images")) for row in data["settings"].values()}
    if counts - {images}:
        found = ", ".join(map(str, sorted(counts - {images})))
        raise SystemExit(
            f"{path} holds settings of {found} images, not {images}; give that number as --images, "
            "or move the file away."
        )
    return data


def main() -> None:
    """Run the settings that the results file lacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="fashion-silu")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="names of settings")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path = Path(f"docs/data/accuracy-{args.model}-{args.steps}.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    data = recorded(path, args.images)
    study = Study(args.model, args.steps, args.images)
    data |= {
        "model": args.model,
        "steps": args.steps,
        "images": args.images,
        "frechet_fp32_real": metrics.frechet(study.fp32),
    }
    for name, (dataflow, overrides) in settings(study.source.relu).items():
        if name in data["settings"] or (args.only and name not in args.only):
            continue
        row = data["settings"][name] = study.row(dataflow, overrides)
        path.write_text(json.dumps(data, indent=1) + "\n")
        print(
            f"{name:24} {row['psnr_mean']:6.2f} {row['psnr_median']:6.2f} dB, dense "
            f"{row['dense_psnr_mean']:6.2f}, Frechet {row['frechet_real']:6.2f} (dense "
            f"{row['dense_frechet_real']:.2f}), {row['seconds']:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
