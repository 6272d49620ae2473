"""The whole compiler as one call: torch model to program."""

from __future__ import annotations

from typing import Any

from signmask.compiler.backend.lower import lower
from signmask.compiler.calibration import Calibration, Progress
from signmask.compiler.frontend import quantise
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.container import Program
from signmask.hw.spec.network import Knobs


def compile_model(
    model: Any,
    config: HardwareConfig,
    knobs: Knobs,
    steps: int,
    batch: int,
    scheduler: Any,
    calibration: Calibration | None = None,
    name: str = "model",
    example_inputs: Any = None,
    progress: Progress | None = None,
    images: int = 64,
) -> Program:
    """Compile a torch module, an ExportedProgram or a .pt2 path for `steps` timesteps.

    `images` trajectories are sampled where there is no `calibration`; 0: none, see `quantise`.
    knobs must ask for the lanes that `config` has. The same arguments give the same bytes. Raises
    CompileError, UnsupportedOperators among them, before anything is written.
    """
    network, tensors = quantise(
        model, scheduler, steps, knobs, calibration, name, example_inputs, progress, images, batch
    )
    return lower(network, tensors, config, batch)
