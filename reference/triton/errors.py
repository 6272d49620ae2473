"""Failures of the Triton backend. Importable without torch and Triton."""

from __future__ import annotations


class GpuError(RuntimeError):
    """Triton or a GPU is missing, or a network that the kernels cannot run; one sentence."""
