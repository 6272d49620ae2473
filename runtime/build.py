"""From a model source to a program: the compiler, with the source and the schedule written in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.container import Program
from signmask.hw.spec.network import Knobs
from signmask.runtime.calibrations import shipped
from signmask.runtime.errors import RunError
from signmask.runtime.host import HostScheduler, make_scheduler
from signmask.runtime.sources import ModelSource

CALIBRATION_IMAGES = 64
Progress = Callable[[str, float], None]  # stage, fraction of it


def calibrate_source(
    source: ModelSource,
    steps: int,
    model: Any,
    progress: Progress | None = None,
    images: int = CALIBRATION_IMAGES,
) -> Any:
    """The compiler's statistics of a loaded model, for several programs of the same schedule: the
    ones shipped with a bundled model where they fit, else measured on `images` trajectories."""
    HostScheduler(source.scheduler, steps)
    found = shipped(source, steps)
    if found is not None:
        return found
    from signmask.compiler.frontend import calibrate

    with fixed_randomness():
        return calibrate(
            model,
            make_scheduler(source.scheduler),
            steps,
            source.example_inputs(model),
            images,
            progress=progress,
        )


def build_program(
    source: ModelSource,
    config: HardwareConfig,
    knobs: Knobs,
    steps: int,
    batch: int,
    model: Any = None,
    progress: Progress | None = None,
    calibration: Any = None,
    images: int = CALIBRATION_IMAGES,
) -> Program:
    """Compile a source; `model` spares loading it again, `calibration` (of the same source and
    steps) measuring it again on `images` trajectories (0: statistics are assumed).

    Raises RunError for impossible steps, batch or images, and the compiler's own errors.
    """
    if batch < 1:
        raise RunError(f"the batch is {batch}; compile for at least 1 image.")
    if images < 0:
        raise RunError(
            f"{images} calibration images are asked for; use 0 (assume statistics) or more."
        )
    HostScheduler(source.scheduler, steps)
    from signmask.compiler.driver import compile_model

    if calibration is None and images:
        calibration = shipped(source, steps)
    model = source.load() if model is None else model
    with fixed_randomness():
        program = compile_model(
            model,
            config,
            knobs,
            steps,
            batch,
            scheduler=make_scheduler(source.scheduler),
            calibration=calibration,
            name=source.name,
            example_inputs=source.example_inputs(model),
            progress=progress,
            images=images,
        )
    facts = source.to_json()
    if digest := source.condition_digest(model):
        facts["conditions_sha256"] = digest
    return replace(program, source=facts, scheduler=dict(source.scheduler))


@contextmanager
def fixed_randomness() -> Iterator[None]:
    """torch's global generator at a fixed seed: DDPM draws from it while calibrating, and equal
    models must give equal programs."""
    import torch

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        yield
