"""Seconds per denoising step on the GPU backend: the dense program and the delta programs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from signmask.hw.spec.config import resolve as resolve_config
from signmask.hw.spec.container import Program
from signmask.hw.spec.step import Backend, StepResult
from signmask.runtime.backend import open_backend
from signmask.runtime.build import CALIBRATION_IMAGES, build_program, calibrate_source
from signmask.runtime.presets import knobs_for
from signmask.runtime.session import Session
from signmask.runtime.sources import resolve

FLOWS = ("dense", "restore", "mask")
Progress = Callable[[str, float], None]  # what is being done, fraction of it


@dataclass(frozen=True)
class Workload:
    """A model that is sampled. config: hardware that its program is compiled for, which the GPU
    takes groups and inlier widths from; trained: its deltas are those of a trained model."""

    model: str
    config: str
    trained: bool

    @property
    def note(self) -> str:
        """What its times do not say."""
        if self.trained:
            return ""
        return "random weights, assumed statistics: its deltas are not those of a trained model"


WORKLOADS = (Workload("fashion-silu", "nano", True), Workload("ddpm-cifar10", "paper", False))


class TimedBackend:
    """A backend that notes the seconds of each step, the transfer of its result included."""

    def __init__(self, backend: Backend, clock: Callable[[], float] = time.perf_counter) -> None:
        self._backend, self._clock = backend, clock
        self.dense: list[float] = []
        self.delta: list[float] = []

    def dense_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Step of the backend."""
        start = self._clock()
        result = self._backend.dense_step(index, codes)
        self.dense.append(self._clock() - start)
        return result

    def delta_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Step of the backend."""
        start = self._clock()
        result = self._backend.delta_step(index, codes)
        self.delta.append(self._clock() - start)
        return result


def time_program(
    program: Program, open_one: Callable[[Program], Backend], images: int, seed: int = 0
) -> float:
    """Median seconds of a step: of dense steps in a dense program, else of delta steps. A first run
    of the same schedule compiles the kernels and is not counted."""
    backend = open_one(program)
    Session(program, backend).sample(images, seed)
    timed = TimedBackend(backend)
    Session(program, timed).sample(images, seed)
    dense = program.network.knobs.dataflow == "dense"
    return statistics.median(timed.dense if dense else timed.delta)


def step_rows(
    workload: Workload, steps: int, images: int, device: str, progress: Progress,
    open_one: Callable[[Program], Backend] | None = None,
    calibration_images: int = CALIBRATION_IMAGES,
) -> list[dict[str, Any]]:  # fmt: skip
    """One row per dataflow, all images in one batch. open_one: the backend, `gpu` unless given."""
    open_one = open_one or (lambda program: open_backend("gpu", program))
    source = resolve(workload.model)
    model = source.load()
    hardware = resolve_config(workload.config)
    # Statistics of random weights are not worth sampling them at full size on the CPU.
    measured = calibration_images if workload.trained else 0
    calibration = None
    if measured:
        calibration = calibrate_source(source, steps, model, progress, measured)
    rows: list[dict[str, Any]] = []
    for place, flow in enumerate(FLOWS):
        progress(f"steps of {workload.model}, {flow}", place / len(FLOWS))
        knobs, config = knobs_for(flow, hardware, source.relu)
        program = build_program(
            source, config, knobs, steps, 1, model, calibration=calibration, images=measured
        )
        program = replace(program, batch=images)
        seconds = time_program(program, open_one, images)
        first = rows[0]["seconds_per_step"] if rows else seconds
        rows.append(
            {**unmeasured_step(workload, flow, steps, images), "device": device,
             "seconds_per_step": seconds, "speedup": first / seconds}
        )  # fmt: skip
    return rows


def unmeasured_step(
    workload: Workload, flow: str, steps: int, images: int, device: str = "not measured"
) -> dict[str, Any]:
    """The row of a dataflow without its times."""
    return {
        "model": workload.model, "dataflow": flow, "device": device, "steps": steps,
        "images": images, "seconds_per_step": None, "speedup": None, "trained": workload.trained,
        "note": workload.note,
    }  # fmt: skip
