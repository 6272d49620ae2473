"""Kernels run on a GPU where there is one, else in Triton's interpreter (`tests/conftest.py`)."""

import pytest


@pytest.fixture(scope="session")
def device():
    """Where the kernels run."""
    from signmask.reference.triton.device import find_device

    return find_device()
