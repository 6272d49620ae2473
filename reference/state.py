"""What a delta program keeps from one executed step to the next."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class State:
    """Tensors by name, int64 (batch, height, width, channels), as of step `last`.

    y: raw values of streams. sent: x^, the sum of everything sent, of encodings and sources.
    codes: codes of sources. residue: carried fractions of encodings. segments: segment indices
    that the last mask step used (none after a dense step). accumulators: of linear operators.
    """

    last: int
    y: dict[str, Tensor] = field(default_factory=dict)
    sent: dict[str, Tensor] = field(default_factory=dict)
    codes: dict[str, Tensor] = field(default_factory=dict)
    residue: dict[str, Tensor] = field(default_factory=dict)
    segments: dict[str, Tensor] = field(default_factory=dict)
    accumulators: dict[str, Tensor] = field(default_factory=dict)
