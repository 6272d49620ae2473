"""Arguments of calls: values of the sample's path, constants, and constants per timestep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from signmask.compiler.fusion.value import Reject, Value
from signmask.compiler.graph import CallGraph, Ref
from signmask.compiler.layout import Layout


class Operands:
    """Looks arguments up. `values` maps call names to what they compute, None after a rejection;
    `constants` are the (steps, ...) arrays of the time path."""

    def __init__(self, calls: CallGraph, constants: Mapping[str, np.ndarray], steps: int) -> None:
        self.calls, self.constants, self.steps = calls, constants, steps
        self.values: dict[str, Value | None] = {}

    def find(self, argument: Any) -> Value | None:
        """The value of an argument, or None where it does not depend on the sample."""
        return self.values.get(argument.name) if isinstance(argument, Ref) else None

    def value(self, argument: Any) -> Value:
        """The value of an argument; raises Reject where it does not depend on the sample."""
        value = self.find(argument)
        if value is None:
            raise Reject(
                "its first operand does not depend on the sample", "move it out of the sample path"
            )
        return value

    def constant(self, argument: Any) -> np.ndarray:
        """A tensor that is the same at all timesteps, float64; raises Reject for others."""
        if isinstance(argument, Ref) and argument.name in self.calls.parameters:
            return self.calls.parameters[argument.name].double().numpy()
        if isinstance(argument, Ref) and argument.name in self.constants:
            rows = self.constants[argument.name]
            if (rows == rows[0]).all():
                return rows[0]
        raise Reject("a weight changes with the timestep or the sample", "use constant weights")

    def table(self, argument: Any, layout: Layout) -> np.ndarray:
        """(steps, channels) of a constant or time-dependent addend; raises Reject where it varies
        over positions or images."""
        channels = layout.sizes["c"]
        if isinstance(argument, (int, float)):
            return np.full((self.steps, channels), float(argument))
        if isinstance(argument, Ref) and argument.name in self.constants:
            rows = self.constants[argument.name]
        else:
            rows = np.repeat(self.constant(argument)[None], self.steps, axis=0)
        shape = (1,) * (len(layout.dims) - rows.ndim + 1) + rows.shape[1:]
        axis = layout.dims.index(("c",)) if ("c",) in layout.dims else -1
        if any(
            size != 1 and i != axis and not (layout.dims[i] == ("n",) and _same(rows, i, shape))
            for i, size in enumerate(shape)
        ):
            raise Reject(
                "it adds a constant that varies over positions",
                "add per-channel constants only",
            )
        rows = rows.reshape(self.steps, *shape)
        if layout.dims[0] == ("n",):
            rows = rows[:, :1]
        return np.broadcast_to(rows.reshape(self.steps, -1), (self.steps, channels)).copy()


def _same(rows: np.ndarray, axis: int, shape: tuple[int, ...]) -> bool:
    """Whether all images of a constant's batch axis agree."""
    full = rows.reshape(rows.shape[0], *shape)
    return bool((full == np.take(full, [0], axis=axis + 1)).all())
