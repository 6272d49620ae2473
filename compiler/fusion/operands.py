"""Arguments of calls: values of the sample's path, constants, and constants per timestep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from signmask.compiler.fusion.value import Reject, Value
from signmask.compiler.graph import CallGraph, Ref
from signmask.compiler.layout import Layout, LayoutError


class Operands:
    """Looks arguments up. `values` maps call names to what they compute (several values for a call
    that splits its operand), None after a rejection; `constants` are the (steps, ...) arrays of the
    time path."""

    def __init__(self, calls: CallGraph, constants: Mapping[str, np.ndarray], steps: int) -> None:
        self.calls, self.constants, self.steps = calls, constants, steps
        self.values: dict[str, Value | tuple[Value, ...] | None] = {}

    def find(self, argument: Any) -> Value | None:
        """The value of an argument, or None where it does not depend on the sample."""
        value = self.values.get(argument.name) if isinstance(argument, Ref) else None
        return value if isinstance(value, Value) else None

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
        rows = self.rows(argument)
        if not same_at_all_steps(rows):
            raise Reject("a weight changes with the timestep", "use constant weights")
        return rows[0]

    def weight(self, argument: Any) -> np.ndarray:
        """The same in float32, for a weight matrix: a view of the model's own where it can be, and
        without memory where the model has no weights. Raises Reject."""
        if isinstance(argument, Ref) and argument.name in self.calls.parameters:
            tensor = self.calls.parameters[argument.name]
            if any(tensor.stride()):
                return tensor.float().contiguous().numpy()
            return np.broadcast_to(tensor.flatten()[:1].float().numpy(), tensor.shape)
        return self.constant(argument).astype(np.float32)

    def number(self, argument: Any) -> float | None:
        """A constant of one element, or None for anything else."""
        if isinstance(argument, (int, float)):
            return float(argument)
        try:
            found = self.constant(argument)
        except Reject:
            return None
        return float(found.reshape(())) if found.size == 1 else None

    def spread(self, argument: Any, layout: Layout) -> np.ndarray:
        """(steps or 1, images or 1, positions or 1, channels or 1) of a constant operand of a
        tensor; raises Reject where it does not fit."""
        if isinstance(argument, (int, float)):
            return np.full((1, 1, 1, 1), float(argument))
        rows = self.rows(argument)
        # Axes of stride zero repeat one value, which broadcasts as well as its repetitions.
        rows = rows[tuple(slice(None if stride else 1) for stride in rows.strides)]
        try:
            spread = layout.spread(rows[:1] if same_at_all_steps(rows) else rows)
        except LayoutError as error:
            raise Reject(str(error), "give both operands the sample's shape") from None
        for axis in (1, 2):
            first = np.take(spread, [0], axis)
            spread = first if (spread == first).all() else spread
        return spread

    def vector(self, argument: Any, channels: int, default: float) -> np.ndarray:
        """(channels,) that is the same at all timesteps; all `default` where it is None."""
        if argument is None:
            return np.full(channels, default)
        return self.constant(argument).reshape(-1).copy()

    def rows(self, argument: Any) -> np.ndarray:
        """(steps, ...) float64 of a constant; raises Reject where it depends on the sample."""
        if isinstance(argument, Ref) and argument.name in self.calls.parameters:
            array = self.calls.parameters[argument.name].double().numpy()
            return np.broadcast_to(array, (self.steps, *array.shape))
        if isinstance(argument, Ref) and argument.name in self.constants:
            return self.constants[argument.name]
        raise Reject("a weight changes with the sample", "use constant weights")


def same_at_all_steps(rows: np.ndarray) -> bool:
    """Whether the first axis of `rows` makes no difference."""
    return len(rows) == 1 or rows.strides[0] == 0 or bool((rows == rows[:1]).all())
