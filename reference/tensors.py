"""Reading the tensors of a network, and what a step is given: each is checked for its type and
shape."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from signmask.hw.spec.network import Network


class TensorReader:
    """The integer tensors of a network on a device, as int64. Raises ValueError for one that is
    absent, of another type or of another shape."""

    def __init__(self, tensors: Mapping[str, np.ndarray], device: torch.device) -> None:
        self.tensors, self.device = tensors, device

    def __call__(self, name: str, *shape: int) -> Tensor:
        """A tensor of that shape; a size of -1 accepts any length."""
        value = self._find(name)
        if len(value.shape) != len(shape) or any(
            want not in (size, -1) for size, want in zip(value.shape, shape, strict=False)
        ):
            raise ValueError(
                f"tensor '{name}' has shape {value.shape} where the network needs {shape}; "
                "compile it again."
            )
        return torch.tensor(value.astype(np.int64), device=self.device)

    def steps(self, name: str, steps: int, channels: int) -> Tensor:
        """(steps, channels) of a tensor that has a row per step, or one for all of them."""
        if self._find(name).ndim == 1:
            return self(name, channels).expand(steps, channels)
        return self(name, steps, channels)

    def images(self, name: str, steps: int, batch: int, channels: int) -> Tensor:
        """(steps, batch or 1, 1, 1, channels) of a tensor (steps, images, channels), whose rows are
        repeated for the batch, or of one that `steps` takes."""
        if self._find(name).ndim < 3:
            return self.steps(name, steps, channels)[:, None, None, None]
        rows = self(name, steps, -1, channels)
        if batch % rows.shape[1]:
            raise ValueError(
                f"tensor '{name}' differs between {rows.shape[1]} images and the batch is {batch}; "
                "choose a multiple."
            )
        return rows.repeat(1, batch // rows.shape[1], 1)[:, :, None, None]

    def _find(self, name: str) -> np.ndarray:
        if name not in self.tensors:
            raise ValueError(f"tensor '{name}' is missing from the network; compile it again.")
        value = np.asarray(self.tensors[name])
        if value.dtype.kind not in "iu":
            raise ValueError(
                f"tensor '{name}' is of type {value.dtype}; integers are required, compile again."
            )
        return value


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
