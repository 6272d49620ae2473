"""What a run is compared with: the fp32 model, and the same quantised network run densely."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace

import numpy as np

from signmask.hw.spec.container import Program
from signmask.runtime.errors import RunError
from signmask.runtime.host import HostScheduler, noise
from signmask.runtime.session import Progress, SampleResult, Session
from signmask.runtime.sources import FloatModel

FLOAT_BATCH = 32
GOLDEN_BATCH = 8


@dataclass(frozen=True)
class FloatSamples:
    """images: float64 (images, channels, height, width); trajectory: float32 (steps, images, ...),
    the sample after each step."""

    images: np.ndarray
    trajectory: np.ndarray


def sample_float(
    model: FloatModel,
    scheduler: HostScheduler,
    shape: tuple[int, int, int],
    images: int,
    seed: int,
    progress: Progress | None = None,
) -> FloatSamples:
    """Sample the fp32 model from the noise that a session takes, on the same float64 host."""
    x = scheduler.initial(noise(seed, images, shape))
    generators = scheduler.generators(seed, range(images)) if scheduler.stochastic else None
    path = np.empty((len(scheduler.timesteps), *x.shape), np.float32)
    for index, timestep in enumerate(scheduler.timesteps):
        parts = [
            model(x[first : first + FLOAT_BATCH], timestep)
            for first in range(0, images, FLOAT_BATCH)
        ]
        eps = np.concatenate(parts).astype(np.float64)
        if eps.shape != x.shape:
            raise RunError(
                f"the fp32 model returned shape {eps.shape} for a sample of shape {x.shape}; it "
                "must predict noise of the sample's shape."
            )
        if not np.isfinite(eps).all():
            raise RunError(
                f"the fp32 model returned NaN or infinity at timestep {timestep}; "
                "check its weights."
            )
        x = scheduler.step(index, eps, x, generators)
        path[index] = x
        if progress:
            progress(index + 1, len(scheduler.timesteps))
    return FloatSamples(x, path)


def sample_dense(
    program: Program, images: int, seed: int, progress: Progress | None = None
) -> SampleResult:
    """The program's network on the golden model with a dense step at every timestep.

    An image does not depend on its batch, so the batch is chosen for speed.
    """
    knobs = replace(program.network.knobs, dataflow="dense")
    network = replace(program.network, knobs=knobs)
    dense = replace(program, network=network, batch=min(images, GOLDEN_BATCH))
    return Session(dense, "reference").sample(images, seed, progress, trajectory=True)


def dense_key(program: Program) -> str:
    """Equal for programs whose dense runs are equal: the network without knobs and placement."""
    network = program.network.to_json()
    for field in ("knobs", "info", "name"):
        network.pop(field)
    for layer in (*network["encodings"].values(), *network["sources"].values()):
        layer.pop("mode")
        layer.pop("reason")
    for stream in network["streams"].values():
        stream.pop("delta_bits")
    digest = hashlib.sha256(json.dumps(network, sort_keys=True).encode())
    for name, tensor in sorted(program.tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return digest.hexdigest()
