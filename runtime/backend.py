"""The backends that can execute a program, by name."""

from __future__ import annotations

from pathlib import Path

from signmask.hw.spec.container import Program
from signmask.hw.spec.step import Backend, StepResult
from signmask.runtime.errors import RunError

__all__ = ["BACKENDS", "Backend", "StepResult", "open_backend"]

BACKENDS = ("reference", "gpu", "sim", "rtl")


def open_backend(name: str, program: Program) -> Backend:
    """A fresh backend with the program loaded; raises ValueError for an unknown name, RunError for
    a program without weights, and GpuError where nothing can run Triton kernels."""
    _require_weights(program)
    if name == "reference":
        from signmask.reference.golden import GoldenModel

        return GoldenModel(program.network, program.tensors, program.batch)
    if name == "gpu":
        return open_gpu(program)
    if name == "sim":
        from signmask.sim.machine import Machine

        return Machine(program)
    if name == "rtl":
        return open_rtl(program)
    raise ValueError(f"unknown backend '{name}'; choose one of {', '.join(BACKENDS)}.")


def open_rtl(program: Program, stall_seed: int | None = None, waves: Path | None = None) -> Backend:
    """The RTL in Verilator, compiled on first use. stall_seed: stall all memory channels at
    random. waves: file for a trace of all signals. Raises RtlError when a tool is missing and
    RunError for a program without weights."""
    _require_weights(program)
    from signmask.hw.simulation.backend import RtlMachine

    return RtlMachine(program, stall_seed=stall_seed, waves=waves)


def open_gpu(program: Program) -> Backend:
    """Triton kernels on a GPU, or interpreted; raises GpuError without Triton or a device."""
    from signmask.reference.triton.device import find_device

    find_device()  # before an import that needs Triton
    from signmask.reference.triton.model import TritonModel

    return TritonModel(program.network, program.tensors, program.batch)


def _require_weights(program: Program) -> None:
    if program.network.info.get("weights") == "none":
        raise RunError(
            f"the program of '{program.network.name}' has no weights and cannot be run; compile it "
            "without --no-weights."
        )
