"""The backends that can execute a program, by name."""

from __future__ import annotations

from signmask.hw.spec.container import Program
from signmask.hw.spec.step import Backend, StepResult

__all__ = ["BACKENDS", "Backend", "StepResult", "open_backend"]

BACKENDS = ("reference", "sim")


def open_backend(name: str, program: Program) -> Backend:
    """A fresh backend with the program loaded; raises ValueError for an unknown name."""
    if name == "reference":
        from signmask.reference.golden import GoldenModel

        return GoldenModel(program.network, program.tensors, program.batch)
    if name == "sim":
        from signmask.sim.machine import Machine

        return Machine(program)
    raise ValueError(f"unknown backend '{name}'; choose one of {', '.join(BACKENDS)}.")
