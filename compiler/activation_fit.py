"""The elementwise functions of an encoding, and their piecewise-linear fit by dynamic programming
over a histogram."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from signmask.compiler.graph import Activation

CELLS = 384


@dataclass(frozen=True)
class Segments:
    """Real-valued linear segments: `breaks` (n - 1,), `slopes` (n,), `intercepts` (n,)."""

    breaks: np.ndarray
    slopes: np.ndarray
    intercepts: np.ndarray

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """Value at z, each in its segment (a break belongs to the segment on its right)."""
        index = np.searchsorted(self.breaks, z, side="right")
        return self.slopes[index] * z + self.intercepts[index]


# Functions of a tensor, with their parameters by position; torch evaluates them in any precision.
TORCH_FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "identity": lambda x: x,
    "relu": F.relu,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "relu6": F.relu6,
    "softplus": F.softplus,
    "elu": F.elu,
    "leaky_relu": F.leaky_relu,
    "hardtanh": F.hardtanh,
}


def _silu(z: np.ndarray) -> np.ndarray:
    return z / (1 + np.exp(-np.clip(z, -60, 60)))


def _in_numpy(function: Callable[..., torch.Tensor], z: np.ndarray, *given: float) -> np.ndarray:
    return function(torch.from_numpy(np.asarray(z, np.float64)), *given).numpy()


FUNCTIONS: dict[str, Callable[..., np.ndarray]] = {
    **{name: partial(_in_numpy, function) for name, function in TORCH_FUNCTIONS.items()},
    "identity": lambda z: z,
    "relu": lambda z: np.maximum(z, 0),
    "silu": _silu,
}


def _applied(table: dict[str, Callable[..., Any]], kind: Activation, x: Any) -> Any:
    name, *given = kind.split(":")
    return table[name](x, *map(float, given))


def activation_value(kind: Activation, z: np.ndarray) -> np.ndarray:
    """The exact activation in float64. `kind` is a name of FUNCTIONS, followed by the function's
    parameters if it has any, as in "leaky_relu:0.2"."""
    return np.asarray(_applied(FUNCTIONS, kind, z))


def activate(kind: Activation, x: torch.Tensor) -> torch.Tensor:
    """The same of a tensor, in its precision."""
    return torch.as_tensor(_applied(TORCH_FUNCTIONS, kind, x))


def fit(kind: Activation, bits: int, z: np.ndarray, weight: np.ndarray) -> Segments:
    """2**bits segments (identity: one) with least weighted square error on the points `z`
    (ascending), `weight` >= 0. ReLU is exact: its unused breaks are at infinity."""
    if kind == "identity":
        return Segments(np.zeros(0), np.ones(1), np.zeros(1))
    segments = 1 << bits
    if kind == "relu":
        breaks = np.full(segments - 1, np.inf)
        breaks[0] = 0.0
        slopes = np.ones(segments)
        slopes[0] = 0.0
        return Segments(breaks, slopes, np.zeros(segments))
    edges, moments = _cells(kind, z, weight, max(CELLS, segments))
    cuts = _partition(_costs(moments), segments)
    lines = [_line(moments[b] - moments[a]) for a, b in pairwise(cuts)]
    slopes, intercepts = (np.array(column) for column in zip(*lines, strict=True))
    return Segments(edges[cuts[1:-1]], slopes, intercepts)


def _cells(
    kind: Activation, z: np.ndarray, weight: np.ndarray, cells: int
) -> tuple[np.ndarray, np.ndarray]:
    """Candidate edges (cells + 1,) and cumulative moments (cells + 1, 6) of 1, z, zz, f, zf, ff."""
    # A little uniform weight keeps segments defined where calibration saw nothing.
    density = weight / max(weight.sum(), 1e-30) + 1e-6 / len(z)
    used = np.flatnonzero(weight > 0)
    first, last = (used[0], used[-1]) if len(used) else (0, len(z) - 1)
    spread = np.cumsum(density) / density.sum() + np.linspace(0, 1, len(z))
    starts = np.unique(np.searchsorted(spread, np.linspace(0, 2, cells + 1)[1:-1]))
    starts = starts[(starts > first) & (starts <= last)]
    if len(starts) < cells // 8:  # a histogram of few bins: any bin may start a segment
        starts = np.arange(1, len(z), max(1, len(z) // cells))
    bounds = np.concatenate([[0], starts, [len(z)]])
    f = activation_value(kind, z)
    terms = np.stack([np.ones_like(z), z, z * z, f, z * f, f * f], 1) * density[:, None]
    cumulative = np.concatenate([np.zeros((1, 6)), np.cumsum(terms, 0)])
    middle = (z[bounds[1:-1] - 1] + z[bounds[1:-1]]) / 2
    return np.concatenate([[-np.inf], middle, [np.inf]]), cumulative[bounds]


def _line(moment: np.ndarray) -> tuple[float, float]:
    """Weighted least-squares (slope, intercept)."""
    w, sz, szz, sf, szf, _ = moment
    spread = szz * w - sz * sz
    slope = (szf * w - sz * sf) / spread if spread > 1e-12 * szz * w else 0.0
    return slope, (sf - slope * sz) / w


def _costs(moments: np.ndarray) -> np.ndarray:
    """Square error (cells + 1, cells + 1) of one line over cells a..b-1; infinite for b <= a."""
    d = moments[None] - moments[:, None]
    w, sz, szz, sf, szf, sff = (d[..., i] for i in range(6))
    with np.errstate(divide="ignore", invalid="ignore"):
        vz, vzf, vf = szz - sz * sz / w, szf - sz * sf / w, sff - sf * sf / w
        cost = vf - np.where(vz > 1e-15, vzf * vzf / vz, 0.0)
    n = len(moments)
    cost[np.arange(n)[:, None] >= np.arange(n)[None]] = np.inf
    return np.maximum(cost, 0.0)


def _partition(cost: np.ndarray, segments: int) -> np.ndarray:
    """Cell indices 0 = c0 < c1 < ... = cells of the cheapest partition."""
    n = len(cost)
    best = cost[0].copy()
    choices = []
    for _ in range(segments - 1):
        total = best[:, None] + cost
        choices.append(total.argmin(0))
        best = total.min(0)
    cuts = [n - 1]
    for choice in reversed(choices):
        cuts.append(int(choice[cuts[-1]]))
    return np.array([0, *reversed(cuts)])
