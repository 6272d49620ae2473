"""Where the Triton kernels run. Importable without Triton."""

from __future__ import annotations

import importlib.util
import os

import torch

from signmask.reference.triton.errors import GpuError


def interpreted() -> bool:
    """Whether Triton interprets its kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def find_device() -> torch.device:
    """The device of the kernels; raises GpuError where none can run them."""
    if importlib.util.find_spec("triton") is None:
        raise GpuError(
            "backend 'gpu' needs the Python package 'triton', which is not installed; install it "
            "with \"pip install 'signmask[gpu]'\"."
        )
    if interpreted():
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise GpuError(
            "backend 'gpu' found no CUDA device; use another backend, or set TRITON_INTERPRET=1 to "
            "interpret its kernels on the CPU, thousands of times slower."
        )
    return torch.device("cuda")


def device_name() -> str:
    """What a measurement names as its device."""
    device = find_device()
    if device.type == "cpu":
        return "Triton's interpreter on the CPU"
    return torch.cuda.get_device_name(device)
