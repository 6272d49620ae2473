"""From a torch model to a quantised Network: the compiler's front half."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from signmask.compiler.calibration import Calibration, Progress, measure, schedule_of
from signmask.compiler.delta_shares import delta_shares
from signmask.compiler.errors import check_batch
from signmask.compiler.graph import TensorGraph
from signmask.compiler.passes.bias_correction import correct_bias
from signmask.compiler.passes.capture import capture
from signmask.compiler.passes.fuse import fuse
from signmask.compiler.passes.normalise import normalise
from signmask.compiler.passes.pad_heads import pad_heads
from signmask.compiler.passes.quantise import build_network
from signmask.compiler.passes.time_path import fold_time_path
from signmask.compiler.synthetic import UNIT_NORMAL, lacks_weights, unit_normal
from signmask.compiler.verifier import verify_calls, verify_network, verify_tensors
from signmask.hw.spec.network import Knobs, Network

__all__ = ["Calibration", "calibrate", "quantise", "trace"]


def trace(model: Any, timesteps: tuple[int, ...], example_inputs: Any = None) -> TensorGraph:
    """The fused float graph of a model for these timesteps.

    `model` is a torch.nn.Module called as model(sample, timestep), an ExportedProgram, or the path
    of a .pt2 file. Raises CompileError, and UnsupportedOperators with every operator that does not
    fit.
    """
    with one_thread():
        calls = capture(model, example_inputs)
        verify_calls(calls)
        calls = normalise(calls)
        verify_calls(calls)
        constants = fold_time_path(calls, timesteps)
        verify_calls(calls)
        graph = fuse(calls, constants, timesteps)
        verify_tensors(graph)
    return graph


@contextmanager
def one_thread() -> Iterator[None]:
    """torch on one thread: float sums depend on how they are split, and a program must not."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def calibrate(
    model: Any,
    scheduler: Any,
    steps: int,
    example_inputs: Any = None,
    images: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Calibration:
    """Statistics over `images` float32 trajectories of `steps` steps. Deterministic in `seed`.

    `progress(stage, fraction)` is called as work proceeds. Raises CompileError.
    """
    scheduler, timesteps = schedule_of(scheduler, steps)
    graph = trace(model, timesteps, example_inputs)
    with one_thread():
        return measure(graph, scheduler, images, seed, progress)


def quantise(
    model: Any,
    scheduler: Any,
    steps: int,
    knobs: Knobs,
    calibration: Calibration | None = None,
    name: str = "model",
    example_inputs: Any = None,
    progress: Progress | None = None,
    images: int = 64,
    batch: int | None = None,
) -> tuple[Network, dict[str, np.ndarray]]:
    """The integer Network of a model and its tensors by name; see `trace` for `model`.

    Without a `calibration`, `images` trajectories are sampled first; for 0 images, and where
    weights are absent, statistics are assumed (`synthetic`), and the network's `info` says so. A
    `batch` that does not fit the model is refused before that. Raises CompileError.
    """
    scheduler, timesteps = schedule_of(scheduler, steps)
    graph = trace(model, timesteps, example_inputs)
    if batch is not None:
        check_batch(name, graph.images, batch)
    missing = lacks_weights(graph)
    info: dict[str, Any] = {}
    if calibration is None and (missing or images == 0):
        calibration = unit_normal(graph)
        shares = delta_shares(steps, knobs.inlier_bits, knobs.dataflow)
        info = {"statistics": UNIT_NORMAL, "deltas": asdict(shares)}
    if missing:
        info["weights"] = "none"
    with one_thread():
        if calibration is None:
            calibration = measure(graph, scheduler, images, progress=progress)
        calibration.check(graph)
        network, tensors = build_network(graph, calibration, knobs, name)
        if calibration.inputs.size:
            correct_bias(network, tensors, graph, calibration, progress=progress)
    network = replace(network, info=network.info | info)
    verify_network(network, tensors)
    network = pad_heads(network, tensors)
    verify_network(network, tensors)
    return network, tensors
