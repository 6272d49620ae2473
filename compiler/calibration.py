"""Statistics of a network's tensors over sampled trajectories, and their safetensors file."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from signmask.compiler.errors import CompileError
from signmask.compiler.float_model import FloatModel
from signmask.compiler.graph import (
    AttentionOp,
    EncodingOp,
    InputOp,
    NormOp,
    ProductOp,
    StreamOp,
    TensorGraph,
)

BINS = 2048
BATCH = 8
# Noise of calibration comes from another key than any sampled image, (seed, i) with seed >= 0.
NOISE_KEY = 0x5CA1AB1E_00000000

Progress = Callable[[str, float], None]
_TABLES = ("ranges", "histograms", "group_mean", "group_deviation", "channel_mean")


@dataclass
class Calibration:
    """Per tensor name: `ranges` (low, high) float64; `histograms` (BINS,) float64 counts over the
    range; per norm `group_mean`, `group_deviation` (steps, groups), the mean and the geometric mean
    over images (of a token's norm: and positions) of the raw tensor's group statistics; per stream
    `channel_mean` (steps, channels). `inputs` float32 (steps, images, C, H, W): network inputs of a
    few trajectories, of float16 precision where that holds them all, so that their file is small.
    """

    timesteps: tuple[int, ...]
    ranges: dict[str, np.ndarray] = field(default_factory=dict)
    histograms: dict[str, np.ndarray] = field(default_factory=dict)
    group_mean: dict[str, np.ndarray] = field(default_factory=dict)
    group_deviation: dict[str, np.ndarray] = field(default_factory=dict)
    channel_mean: dict[str, np.ndarray] = field(default_factory=dict)
    inputs: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0, 0, 0), np.float32))

    def centres(self, name: str) -> np.ndarray:
        """Middle of each histogram bin."""
        low, high = self.ranges[name]
        return low + (np.arange(BINS) + 0.5) * (high - low) / BINS

    def extent(self, name: str) -> float:
        """Largest magnitude of a tensor."""
        return float(np.abs(self.ranges[name]).max())

    def save(self, path: str | Path) -> None:
        """Write as safetensors."""
        tensors = {f"{t}/{k}": v for t in _TABLES for k, v in getattr(self, t).items()}
        tensors["inputs"] = _half(self.inputs)
        save_file(tensors, path, metadata={"timesteps": json.dumps(self.timesteps)})

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Inverse of `save`; raises CompileError where the file is not an intact calibration."""
        try:
            with safe_open(str(path), "numpy") as file:
                result = cls(tuple(json.loads(file.metadata()["timesteps"])))
                for key in file.keys():  # noqa: SIM118 (safe_open is not a mapping)
                    table, _, name = key.partition("/")
                    if table == "inputs":
                        result.inputs = file.get_tensor(key).astype(np.float32)
                    elif table in _TABLES:
                        getattr(result, table)[name] = file.get_tensor(key)
                    else:
                        raise KeyError(table)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise CompileError(
                f"'{path}' is not an intact calibration ({type(error).__name__}); write it again "
                "with Calibration.save."
            ) from error
        return result

    def check(self, graph: TensorGraph) -> None:
        """Raise CompileError unless this calibration was measured on `graph`."""
        if self.timesteps != graph.timesteps:
            raise CompileError(
                f"the calibration is for {len(self.timesteps)} timesteps {self.timesteps[:3]}..., "
                f"the schedule has {len(graph.timesteps)}: {graph.timesteps[:3]}...; calibrate "
                "with the same scheduler and number of steps."
            )
        lacking = [n for n, _ in graph.of(EncodingOp) if n not in self.histograms]
        if lacking:
            raise CompileError(
                f"the calibration lacks tensor '{lacking[0]}'; calibrate this model again."
            )


def schedule_of(scheduler: Any, steps: int) -> tuple[Any, tuple[int, ...]]:
    """A copy of the scheduler set to `steps` steps, and its timesteps; raises CompileError."""
    if steps < 1:
        raise CompileError(f"cannot compile {steps} steps; use at least 1.")
    scheduler = copy.deepcopy(scheduler)
    scheduler.set_timesteps(steps)
    return scheduler, tuple(int(t) for t in scheduler.timesteps)


def noise(image: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Starting noise of one calibration image, float64."""
    generator = np.random.Generator(np.random.Philox(key=[NOISE_KEY + seed, image]))
    return generator.standard_normal(shape)


def measure(
    graph: TensorGraph,
    scheduler: Any,
    images: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
    kept: int = 16,
) -> Calibration:
    """Sample `images` trajectories in float32 and collect statistics; the inputs of the first
    `kept` images are stored for bias correction. Raises CompileError if sampling diverges."""
    if images < 1:
        raise CompileError(f"cannot calibrate on {images} images; use at least 1.")
    model = FloatModel(graph)
    source = graph.op(graph.input)
    shape = (source.channels, source.height, source.width)
    ranges = _Ranges(graph)
    # Frames of a video stay together.
    size, images = (-(-n // graph.images) * graph.images for n in (BATCH, images))
    batches = [range(i, min(i + size, images)) for i in range(0, images, size)]
    # One batch fixes the histograms' range, with a margin; then every batch is counted.
    runs = [(batches[0], False), *((batch, True) for batch in batches)]
    result = Calibration(graph.timesteps)
    stored: list[np.ndarray] = []
    for index, (batch, counting) in enumerate(runs):
        start = np.stack([noise(i, shape, seed) for i in batch])
        x = torch.from_numpy(start).float() * float(getattr(scheduler, "init_noise_sigma", 1.0))
        inputs = []
        for step, timestep in enumerate(scheduler.timesteps):
            scaled = scheduler.scale_model_input(x, timestep)
            inputs.append(scaled.numpy().copy())
            ranges.at(step, timestep)
            # Further channels are a learnt variance, which the sampler does not use.
            predicted = model(scaled, step, ranges.observe)[:, : x.shape[1]]
            x = scheduler.step(predicted, timestep, x).prev_sample
            _require_finite(bool(torch.isfinite(x).all()), "the sample", timestep)
            if progress is not None:
                done = (index + (step + 1) / len(graph.timesteps)) / len(runs)
                progress("calibrate", done)
        if not counting:
            ranges.fix()
        elif sum(len(s[0]) for s in stored) < kept:
            stored.append(np.stack(inputs))
    ranges.finish(result)
    kept = -(-kept // graph.images) * graph.images
    kept_inputs = np.concatenate(stored, 1)[:, :kept]
    result.inputs = _half(kept_inputs).astype(np.float32)
    return result


def _half(values: np.ndarray) -> np.ndarray:
    """float16, or float32 where one of the values is beyond its range."""
    with np.errstate(over="ignore"):
        half = np.ascontiguousarray(values, np.float16)
    return half if np.isfinite(half).all() else np.ascontiguousarray(values, np.float32)


def _require_finite(finite: bool, place: str, timestep: Any) -> None:
    if not finite:
        raise CompileError(
            f"sampling the float model gives NaN or infinity in {place} at timestep "
            f"{int(timestep)}; check the weights and the scheduler."
        )


class _Ranges:
    """Collector behind `measure`: first ranges, then histograms and moments."""

    def __init__(self, graph: TensorGraph) -> None:
        self.graph, self.fixed = graph, False
        self.step, self.timestep = 0, 0
        steps = len(graph.timesteps)
        self.steps = steps
        attended = {s for _, op in graph.of(AttentionOp) for s in op.streams}
        self.streams = dict(graph.of(StreamOp))
        self.counted = attended | {
            n for kind in (EncodingOp, AttentionOp, ProductOp, InputOp) for n, _ in graph.of(kind)
        }
        self.normed: dict[tuple[str, ...], list[str]] = {}
        for name, op in graph.of(EncodingOp):
            if op.norm is not None:
                self.normed.setdefault(op.streams, []).append(name)
        self.low: dict[str, float] = {}
        self.high: dict[str, float] = {}
        self.spans: dict[str, tuple[float, float]] = {}
        self.counts: dict[str, np.ndarray] = {}
        self.sums = {n: np.zeros((steps, op.channels)) for n, op in self.streams.items()}
        self.images = np.zeros(steps)
        self.raw: dict[str, torch.Tensor] = {}
        self.means: dict[str, np.ndarray] = {}
        self.logs: dict[str, np.ndarray] = {}

    def at(self, step: int, timestep: Any) -> None:
        """Announce the step of the tensors that follow."""
        self.step, self.timestep = step, timestep

    def observe(self, name: str, x: torch.Tensor) -> None:
        """One tensor of the current step; raises CompileError for NaN and infinity."""
        low, high = (float(v) for v in x.aminmax())
        _require_finite(isfinite(low) and isfinite(high), f"'{name}'", self.timestep)
        self.low[name] = min(low, self.low.get(name, low))
        self.high[name] = max(high, self.high.get(name, high))
        if not self.fixed:
            return
        if name in self.streams:
            self.raw[name] = x
            self.sums[name][self.step] += x.double().mean((2, 3)).sum(0).numpy()
        if name == self.graph.input:
            self.images[self.step] += len(x)
        if name in self.counted:
            span = self.spans[name]
            clamped = x.clamp(*span)
            self.counts[name] += torch.histc(clamped, BINS, *span).double().numpy()
        op = self.graph.op(name)
        if isinstance(op, EncodingOp) and op.norm is not None:
            self._group_statistics(name, op, op.norm)

    def _group_statistics(self, name: str, op: EncodingOp, norm: NormOp) -> None:
        raw = torch.cat([self.raw[s] for s in op.streams], 1).double()
        if norm.axis == "token":
            mean = raw.mean(1) if norm.centred else torch.zeros_like(raw[:, 0])
            variance = raw.square().mean(1) - mean.square() + norm.epsilon
            mean_sum = mean.mean((1, 2)).sum()[None]
            log_sum = (0.5 * variance.log()).mean((1, 2)).sum()[None]
        else:
            grouped = raw.reshape(len(raw), norm.groups, -1)
            variance = grouped.var(-1, unbiased=False) + norm.epsilon
            mean_sum, log_sum = grouped.mean(-1).sum(0), (0.5 * variance.log()).sum(0)
        shape = (self.steps, norm.groups)
        self.means.setdefault(name, np.zeros(shape))[self.step] += mean_sum.numpy()
        self.logs.setdefault(name, np.zeros(shape))[self.step] += log_sum.numpy()

    def fix(self) -> None:
        """Freeze the histograms' ranges, a quarter wider than seen so far."""
        for name in self.counted:
            margin = 0.25 * max(self.high[name] - self.low[name], 1e-6)
            self.spans[name] = (self.low[name] - margin, self.high[name] + margin)
            self.counts[name] = np.zeros(BINS)
        self.fixed = True

    def finish(self, result: Calibration) -> None:
        """Hand the statistics over."""
        for name in sorted(self.low):
            exact = (self.low[name], self.high[name])
            result.ranges[name] = np.array(self.spans.get(name, exact))
        result.histograms = {n: self.counts[n] for n in sorted(self.counts)}
        images = self.images[:, None]
        result.channel_mean = {n: s / images for n, s in sorted(self.sums.items())}
        result.group_mean = {n: m / images for n, m in sorted(self.means.items())}
        result.group_deviation = {n: np.exp(x / images) for n, x in sorted(self.logs.items())}
