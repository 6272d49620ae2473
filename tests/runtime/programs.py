"""Small programs for the tests of the runtime, without code: for the reference backend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from signmask.hw.spec.config import NANO
from signmask.hw.spec.container import Program
from signmask.hw.spec.network import Knobs
from signmask.reference.models.unet import scheduler
from signmask.runtime.host import HostScheduler, scheduler_config
from tests.tiny_networks import NETWORKS

SCHEDULE: dict[str, Any] = scheduler_config(scheduler())
DDPM = {**SCHEDULE, "_class_name": "DDPMScheduler", "variance_type": "fixed_small"}


def tiny_program(
    kind: str = "unet", batch: int = 2, schedule: dict[str, Any] = SCHEDULE, **knobs: Any
) -> Program:
    """A random tiny network with a real schedule."""
    network, tensors = NETWORKS[kind](knobs=Knobs(**knobs))
    timesteps = HostScheduler(schedule, network.steps).timesteps
    return Program(NANO, replace(network, timesteps=timesteps), tensors, batch, scheduler=schedule)
