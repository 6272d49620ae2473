"""The integer golden model: executes a quantised network as `docs/numerics.md` defines it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from signmask.hw.spec.network import Network
from signmask.hw.spec.step import StepResult
from signmask.reference.operators import Observer, Operators
from signmask.reference.state import State
from signmask.reference.steps import MaskStep, RawStep
from signmask.reference.tensors import check_input


class GoldenModel:
    """Steps of one quantised network on one batch.

    `observer(kind, name, tensor)` is called with int64 tensors (batch, height, width, channels):
    `y` and `dy` of streams; `codes` and `dx` of encodings and sources; `segments` (indices) and
    `corrections` of mask encodings; `accumulators` of the output operator. It must not change them.

    Raises ValueError where the network contradicts itself or lacks a tensor.
    """

    def __init__(
        self,
        network: Network,
        tensors: Mapping[str, np.ndarray],
        batch: int,
        observer: Observer | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        if batch < 1:
            raise ValueError(f"batch is {batch}; it must be at least 1.")
        self.network, self.batch = network, batch
        self.device = torch.device(device)
        self._state: State | None = None
        self._operators = Operators(network, tensors, batch, observer, self.device)

    def dense_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Step `index` on raw input codes, int8 (batch, height, width, channels).

        Overwrites all state. Raises ValueError for codes or an index that do not fit the network.
        """
        step = RawStep(self._operators, index, self._input(index, codes), None)
        return self._finish(step.run(), step.counters)

    def delta_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Step `index` as a difference to the step executed last; arguments as in `dense_step`.

        In a dense program this is a dense step. Raises RuntimeError before the first dense step.
        """
        dataflow = self.network.knobs.dataflow
        if dataflow == "dense":
            return self.dense_step(index, codes)
        if self._state is None:
            raise RuntimeError(
                f"delta step {index} of network '{self.network.name}' has no step before it; "
                "execute a dense step first."
            )
        kind = MaskStep if dataflow == "mask" else RawStep
        step = kind(self._operators, index, self._input(index, codes), self._state)
        return self._finish(step.run(), step.counters)

    def _input(self, index: int, codes: np.ndarray) -> Tensor:
        check_input(self.network, self.batch, index, codes)
        return torch.from_numpy(codes.astype(np.int64)).to(self.device)

    def _finish(self, state: State, counters: dict[str, dict[str, int]]) -> StepResult:
        result = state.accumulators[self._operators.output]
        if bool(((result << 32) >> 32 != result).any()):
            raise OverflowError(
                f"output accumulators of network '{self.network.name}' exceed int32; the compiler "
                "must bound them."
            )
        self._state = state
        self._operators.note("accumulators", self._operators.output, result)
        return StepResult(result.to(torch.int32).cpu().numpy(), counters)
