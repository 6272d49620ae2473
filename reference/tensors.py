"""Reading the tensors of a network, and what a step is given: each is checked for its type and
shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from signmask.hw.spec.network import Network

Reader = Callable[..., Tensor]


def tensor_reader(tensors: Mapping[str, np.ndarray], device: torch.device) -> Reader:
    """A function (name, *shape) -> int64 tensor that raises ValueError if absent or misshaped.

    A size of -1 accepts any length. With `rows`, a tensor without the first dimension is repeated
    along it.
    """

    def read(name: str, *shape: int, rows: bool = False) -> Tensor:
        if name not in tensors:
            raise ValueError(f"tensor '{name}' is missing from the network; compile it again.")
        value = np.asarray(tensors[name])
        if value.dtype.kind not in "iu":
            raise ValueError(
                f"tensor '{name}' is of type {value.dtype}; integers are required, compile again."
            )
        if rows and value.ndim == len(shape) - 1:
            value = np.broadcast_to(value, (shape[0], *value.shape))
        if len(value.shape) != len(shape) or any(
            want not in (size, -1) for size, want in zip(value.shape, shape, strict=False)
        ):
            raise ValueError(
                f"tensor '{name}' has shape {value.shape} where the network needs {shape}; "
                "compile it again."
            )
        return torch.tensor(value.astype(np.int64), device=device)

    return read


def read_steps(read: Reader, name: str, steps: int, channels: int) -> Tensor:
    """(steps, channels) of a tensor that has a row per step, or one for all of them."""
    return read(name, steps, channels, rows=True)


def check_input(network: Network, batch: int, index: int, codes: np.ndarray) -> None:
    """Raise ValueError for a step that does not exist, or codes that are not the int8 (batch,
    height, width, channels) of the network's input."""
    if not 0 <= index < network.steps:
        raise ValueError(
            f"step {index} does not exist: network '{network.name}' has steps 0 to "
            f"{network.steps - 1}."
        )
    source = network.sources[network.input]
    shape = (batch, source.height, source.width, source.channels)
    if codes.shape != shape or codes.dtype != np.int8:
        raise ValueError(
            f"input codes are {codes.dtype} {codes.shape}; network '{network.name}' takes int8 "
            f"{shape}."
        )
