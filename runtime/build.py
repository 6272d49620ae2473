"""From a model source to a program: the compiler, with the source and the schedule written in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.container import Program
from signmask.hw.spec.network import Knobs
from signmask.runtime.errors import RunError
from signmask.runtime.host import HostScheduler
from signmask.runtime.sources import ModelSource


def build_program(
    source: ModelSource,
    config: HardwareConfig,
    knobs: Knobs,
    steps: int,
    batch: int,
    model: Any = None,
    progress: Callable[..., None] | None = None,
) -> Program:
    """Compile a source; `model` spares loading it again.

    Raises RunError for impossible steps or batch, and the compiler's own errors.
    """
    if batch < 1:
        raise RunError(f"the batch is {batch}; compile for at least 1 image.")
    HostScheduler(source.scheduler, steps)
    from signmask.compiler.driver import compile_model

    program: Program = compile_model(
        source.load() if model is None else model,
        config,
        knobs,
        steps,
        batch,
        scheduler=source.scheduler,
        progress=progress,
    )
    return replace(program, source=source.to_json(), scheduler=dict(source.scheduler))
