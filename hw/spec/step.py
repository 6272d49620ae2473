"""What one executed denoising step returns, whichever backend ran it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class StepResult:
    """Result and counters of one step.

    accumulators: int32 (batch, height, width, channels) of the output operator, unpadded.
    counters: per encoding or source: zero, inlier, outlier, clipped, elements, segment_changes
    (differential steps); under "streams": saturated elements per stream.
    cycles, busy (cycles per unit) and traffic (bytes by kind) are 0 or empty on untimed backends.
    """

    accumulators: np.ndarray
    counters: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    cycles: int = 0
    busy: Mapping[str, int] = field(default_factory=dict)
    traffic: Mapping[str, int] = field(default_factory=dict)


class Backend(Protocol):
    """Executes the steps of one compiled program on one batch; `delta_step` is legal only after a
    `dense_step`, which overwrites all state."""

    def dense_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Step `index` of the schedule on int8 input codes (batch, height, width, channels)."""
        ...

    def delta_step(self, index: int, codes: np.ndarray) -> StepResult:
        """The same as a difference to the step executed last (restoring or mask dataflow)."""
        ...
