"""Kernels run on a GPU where there is one, else in Triton's interpreter."""

import importlib
import os
import sys

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
    # Triton decides at its import how its own functions (sum, cumsum) run, and another module may
    # have imported it (diffusers does), so these are made anew; types and classes stay.
    for name in ("triton.language.standard", "triton.language"):
        if name in sys.modules:
            importlib.reload(sys.modules[name])


@pytest.fixture(scope="session")
def device():
    """Where the kernels run."""
    from signmask.reference.triton.device import find_device

    return find_device()
