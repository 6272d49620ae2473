"""Differential acceleration of diffusion models: compiler, golden model, cycle-level simulator.

`compile` turns a torch module into one that a diffusers pipeline uses in its place; `Program` is a
compiled model as a file, `Session` samples images with it. Names are imported on first use, so that
`import signmask` needs neither torch nor diffusers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from signmask.hw.spec.config import HardwareConfig
    from signmask.hw.spec.container import Program
    from signmask.hw.spec.network import Knobs
    from signmask.runtime.module import CompiledModel, compile
    from signmask.runtime.session import SampleResult, Session

__all__ = [
    "CompiledModel",
    "HardwareConfig",
    "Knobs",
    "Program",
    "SampleResult",
    "Session",
    "compile",
]

_HOMES = {
    "CompiledModel": "signmask.runtime.module",
    "HardwareConfig": "signmask.hw.spec.config",
    "Knobs": "signmask.hw.spec.network",
    "Program": "signmask.hw.spec.container",
    "SampleResult": "signmask.runtime.session",
    "Session": "signmask.runtime.session",
    "compile": "signmask.runtime.module",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'signmask' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
