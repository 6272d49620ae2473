"""Functions that a model writes out by hand, recognised in the calls and replaced by one call:
gated forms of SiLU, Mish and GELU, and RMS norm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import isclose, pi, sqrt
from typing import Any

import networkx as nx
import numpy as np
import torch

from signmask.compiler.graph import Call, CallGraph, Ref, refs


def is_cast(call: Call) -> bool:
    """Whether a call changes the floating-point format of a tensor, and nothing else."""
    dtype = call.kwargs.get("dtype", torch.float32)
    return call.operator == "aten._to_copy" and (dtype is None or dtype.is_floating_point)


def is_plain(call: Call) -> bool:
    """Whether no keyword argument changes what a call computes, besides its number format."""
    given = {key: value for key, value in call.kwargs.items() if value is not None}
    dtype = given.pop("dtype", torch.float32)
    return is_cast(call) or (given in ({}, {"alpha": 1}) and dtype.is_floating_point)


@dataclass
class Rewriter:
    """The calls in rewriting; `constants` are the (steps, ...) arrays of the time path."""

    calls: CallGraph
    constants: dict[str, np.ndarray]
    changed: bool = False

    def call(self, argument: Any, *operators: str) -> Call | None:
        """The call behind an argument, changes of format skipped, if it is one of `operators` and
        has no keyword argument that changes what it computes."""
        argument = self.skip_casts(argument)
        if not isinstance(argument, Ref) or argument.name not in self.calls.graph:
            return None
        call = self.calls.call(argument.name)
        return call if call.operator in operators and is_plain(call) else None

    def skip_casts(self, argument: Any) -> Any:
        """An argument before changes of its number format."""
        while isinstance(argument, Ref) and argument.name in self.calls.graph:
            call = self.calls.call(argument.name)
            if not is_cast(call):
                break
            argument = call.args[0]
        return argument

    def number(self, argument: Any) -> float | None:
        """A constant of one element that is the same at all steps, None for anything else."""
        if isinstance(argument, (int, float)):
            return float(argument)
        if not isinstance(argument, Ref):
            return None
        if argument.name in self.calls.parameters:
            tensor = self.calls.parameters[argument.name]
            return float(tensor) if tensor.numel() == 1 else None
        rows = self.constants.get(argument.name)
        if rows is None or rows.size != len(rows) or (rows != rows[:1]).any():
            return None
        return float(rows.reshape(-1)[0])

    def is_constant(self, argument: Any) -> bool:
        """Whether an argument is a tensor that does not depend on the sample."""
        return isinstance(argument, Ref) and (
            argument.name in self.calls.parameters or argument.name in self.constants
        )

    def dtype(self, argument: Ref) -> torch.dtype | None:
        """The number format of a tensor."""
        return self.calls.dtype(argument.name)

    def replace(self, name: str, target: str, args: tuple[Any, ...], **kwargs: Any) -> None:
        """Let node `name` compute another call."""
        call = self.calls.call(name)
        call.target, call.args, call.kwargs = target, args, kwargs
        graph = self.calls.graph
        graph.remove_edges_from(list(graph.in_edges(name)))
        graph.add_edges_from((used, name) for used in refs(args) if used in graph)
        graph.add_edges_from((used, name) for used in refs(kwargs) if used in graph)
        self.changed = True

    def add(self, like: str, target: str, args: tuple[Any, ...], shape: tuple[int, ...]) -> Ref:
        """A new node, traced to the user's line of the node `like`."""
        graph, number = self.calls.graph, 1
        while (name := f"{like}.operand_{number}") in graph:
            number += 1
        op = Call(target, args, {}, shape, self.calls.call(like).trace, self.calls.call(like).dtype)
        graph.add_node(name, op=op)
        graph.add_edges_from((used, name) for used in refs(args) if used in graph)
        return Ref(name)

    def add_constant(self, like: str, rows: np.ndarray) -> Ref:
        """A new (steps, ...) constant."""
        ref = self.add(like, "", (), rows.shape[1:])
        self.calls.call(ref.name).target = None
        self.constants[ref.name] = rows
        return ref

    def prune(self) -> None:
        """Drop what the output does not need any more."""
        calls = self.calls
        needed = nx.ancestors(calls.graph, calls.output) | {calls.output, calls.sample}
        needed |= {calls.timestep} | self.constants.keys()
        calls.graph.remove_nodes_from([n for n in calls.graph if n not in needed])


def rewrite_composites(rewriter: Rewriter) -> None:
    """Replace every function that is recognised."""
    for name in list(rewriter.calls.graph):
        if rewriter.calls.call(name).operator != "aten.mul":
            continue
        for recognise in (_gated, _gelu, _rms_norm):
            if recognise(rewriter, name):
                break


def _either(args: tuple[Any, ...]) -> Iterator[tuple[Any, Any]]:
    yield args[0], args[1]
    yield args[1], args[0]


def _scaled(rewriter: Rewriter, argument: Any) -> tuple[Any, float]:
    """(x, c) of an argument c * x or x / d."""
    argument = rewriter.skip_casts(argument)
    call = rewriter.call(argument, "aten.mul", "aten.div")
    if call is None:
        return argument, 1.0
    pairs = list(_either(call.args)) if call.operator == "aten.mul" else [call.args[:2]]
    for x, factor in pairs:
        number = rewriter.number(factor)
        if number:
            x, more = _scaled(rewriter, x)
            return x, more * (number if call.operator == "aten.mul" else 1 / number)
    return argument, 1.0


def _gated(rewriter: Rewriter, name: str) -> bool:
    """x * sigmoid(c * x), and x * tanh(softplus(x))."""
    for x, gate in _either(rewriter.calls.call(name).args):
        x = rewriter.skip_casts(x)
        sigmoid = rewriter.call(gate, "aten.sigmoid")
        if sigmoid is not None:
            inner, factor = _scaled(rewriter, sigmoid.args[0])
            if rewriter.skip_casts(sigmoid.args[0]) == x:
                rewriter.replace(name, "aten.silu.default", (x,))
                return True
            if inner == x and isclose(factor, 1.702, rel_tol=1e-6):
                rewriter.replace(name, "signmask.quick_gelu.default", (x,))
                return True
        tanh = rewriter.call(gate, "aten.tanh")
        softplus = tanh and rewriter.call(tanh.args[0], "aten.softplus")
        if softplus and len(softplus.args) == 1 and rewriter.skip_casts(softplus.args[0]) == x:
            rewriter.replace(name, "aten.mish.default", (x,))
            return True
    return False


def _factors(rewriter: Rewriter, argument: Any) -> tuple[float, list[Any]]:
    """(number, others) of a product."""
    argument = rewriter.skip_casts(argument)
    number = rewriter.number(argument)
    if number is not None:
        return number, []
    call = rewriter.call(argument, "aten.mul", "aten.div")
    if call is not None and call.operator == "aten.mul":
        (a, left), (b, right) = (_factors(rewriter, arg) for arg in call.args[:2])
        return a * b, left + right
    divisor = rewriter.number(call.args[1]) if call is not None else None
    if call is not None and divisor:
        a, left = _factors(rewriter, call.args[0])
        return a / divisor, left
    return 1.0, [argument]


def _gelu(rewriter: Rewriter, name: str) -> bool:
    """x * 0.5 * (1 + erf(x / sqrt(2))), and its approximation by tanh."""
    number, others = _factors(rewriter, Ref(name))
    if len(others) != 2 or not isclose(number, 0.5, rel_tol=1e-6):
        return False
    for x, gate in _either(tuple(others)):
        add = rewriter.call(gate, "aten.add")
        if add is None or len(add.args) != 2:
            continue
        for one, function in _either(add.args):
            if rewriter.number(one) != 1:
                continue
            erf = rewriter.call(function, "aten.erf")
            if erf is not None:
                inner, factor = _scaled(rewriter, erf.args[0])
                if inner == x and isclose(factor, sqrt(0.5), rel_tol=1e-6):
                    rewriter.replace(name, "aten.gelu.default", (x,))
                    return True
            tanh = rewriter.call(function, "aten.tanh")
            if tanh is not None and _is_cubic(rewriter, tanh.args[0], x):
                rewriter.replace(name, "aten.gelu.default", (x,), approximate="tanh")
                return True
    return False


def _is_cubic(rewriter: Rewriter, argument: Any, x: Any) -> bool:
    """sqrt(2 / pi) * (x + 0.044715 * x^3)."""
    inner, factor = _scaled(rewriter, argument)
    add = rewriter.call(inner, "aten.add")
    if add is None or not isclose(factor, sqrt(2 / pi), rel_tol=1e-5):
        return False
    for linear, cubic in _either(add.args):
        power, coefficient = _scaled(rewriter, cubic)
        call = rewriter.call(power, "aten.pow")
        third = call is not None and call.args[1] == 3 and rewriter.skip_casts(call.args[0]) == x
        if third and rewriter.skip_casts(linear) == x and isclose(coefficient, 0.044715):
            return True
    return False


def _rms_norm(rewriter: Rewriter, name: str) -> bool:
    """x * rsqrt(mean(x^2) + epsilon) over the last dimension."""
    for x, gate in _either(rewriter.calls.call(name).args):
        x = rewriter.skip_casts(x)
        root = rewriter.call(gate, "aten.rsqrt")
        add = root and rewriter.call(root.args[0], "aten.add")
        epsilon = add and rewriter.number(add.args[1])
        mean = add and rewriter.call(add.args[0], "aten.mean")
        power = mean and rewriter.call(mean.args[0], "aten.pow", "aten.square")
        if not mean or not power or epsilon is None or not isinstance(x, Ref):
            continue
        square = power.operator == "aten.square" or power.args[1] == 2
        shape = rewriter.calls.call(x.name).shape
        last = mean.shape == (*shape[:-1], 1) and mean.args[1:2] in (([-1],), ([len(shape) - 1],))
        if square and last and rewriter.skip_casts(power.args[0]) == x:
            rewriter.replace(name, "aten.rms_norm.default", (x, [shape[-1]], None, epsilon))
            return True
    return False


Pass = Callable[[Rewriter], None]


def rewritten(
    calls: CallGraph, constants: Mapping[str, np.ndarray], *passes: Pass
) -> dict[str, np.ndarray]:
    """Change `calls` by each pass in turn; the constants, with those that were added."""
    rewriter = Rewriter(calls, dict(constants))
    for rewrite in passes:
        rewrite(rewriter)
    if rewriter.changed:
        rewriter.prune()
    return rewriter.constants
