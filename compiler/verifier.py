"""Checks between passes: what every pass may rely on.

A failure is a defect of the compiler, not of the model, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping

import networkx as nx
import numpy as np

from signmask.compiler.errors import CompileError
from signmask.compiler.graph import (
    AttentionOp,
    CallGraph,
    EncodingOp,
    LinearOp,
    ProductOp,
    StreamOp,
    TensorGraph,
    refs,
)
from signmask.hw.spec.network import Network
from signmask.hw.spec.network_check import check_network
from signmask.hw.spec.widths import MULTIPLIER_BITS, MULTIPLIER_LIMIT


class VerifierError(CompileError):
    """The graph breaks a rule that a pass promised to keep."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(
            f"internal error at '{place}': {problem}; please report the model that causes it."
        )


def _require(condition: object, place: str, problem: str) -> None:
    if not condition:
        raise VerifierError(place, problem)


def verify_calls(calls: CallGraph) -> None:
    """Acyclic; every operand exists; sample and output are present."""
    graph = calls.graph
    _require(nx.is_directed_acyclic_graph(graph), calls.output, "the call graph has a cycle")
    for name in (calls.sample, calls.output):
        _require(name in graph, name, "the node is missing")
    for name in graph:
        call = graph.nodes[name].get("op")
        _require(call is not None, name, "the node has no operator")
        if call.target is not None:
            for used in refs((call.args, call.kwargs)):
                known = used in graph or used in calls.parameters
                _require(known, name, f"operand '{used}' is missing")


def verify_tensors(graph: TensorGraph) -> None:
    """Shapes agree along every edge, and every stream is written before it is read."""
    place = graph.output
    _require(nx.is_directed_acyclic_graph(graph.graph), place, "the tensor graph has a cycle")
    steps = len(graph.timesteps)
    for name, op in graph.of(StreamOp):
        fits = op.table.shape in {(steps, rows, op.channels) for rows in (1, graph.images)}
        _require(fits, name, "its table has the wrong shape")
        _require(np.isfinite(op.table).all(), name, "its table is not finite")
        _require(op.linears or op.adds, name, "nothing writes it")
        if op.offset is not None:
            rows, *shape = op.offset.shape
            fits = shape == [op.height * op.width, op.channels] and rows in (1, graph.images)
            _require(fits, name, "its offset has the wrong shape")
        for linear in op.linears:
            _require(graph.op(linear).out == name, linear, f"it does not write '{name}'")
            size = graph.out_size(graph.op(linear))
            _require(size == (op.height, op.width), linear, f"its result does not fit '{name}'")
        for other in map(graph.op, op.adds):
            same = (other.channels, other.height, other.width) == (op.channels, op.height, op.width)
            _require(same, name, "an addend differs in shape")
    for name, op in graph.of(EncodingOp):
        streams = [graph.op(s) for s in op.streams]
        _require(sum(s.channels for s in streams) == op.channels, name, "channels do not add up")
        fits = all((s.height, s.width) == (op.height, op.width) for s in streams)
        _require(fits, name, "its streams differ in size")
    for name, op in graph.of(LinearOp):
        channels = graph.op(op.source).channels
        fits = op.weight.shape[1] * op.groups == channels and len(op.weight) % op.groups == 0
        _require(fits, name, f"its source has {channels} channels")
    for name, op in graph.of(ProductOp):
        for factor in (op.a, op.b):
            encoding = graph.op(factor)
            same = isinstance(encoding, EncodingOp) and encoding.channels == op.channels
            _require(same, name, f"its factor '{factor}' does not fit")
            _require(graph.graph.out_degree(factor) == 1, name, f"it shares its factor '{factor}'")
        _require(op.a != op.b, name, "it multiplies an encoding with itself")
    for name, op in graph.of(AttentionOp):
        widths = {graph.op(s).channels for s in op.streams}
        if op.keys is not None and op.values is not None:
            widths |= {op.keys.shape[-1], op.values.shape[-1]}
            _require(op.keys.shape == op.values.shape, name, "keys and values differ in shape")
        _require(widths == {op.channels}, name, "q, k and v differ in width")
        _require(op.channels % op.heads == 0, name, "heads do not divide its channels")
        _require(op.frames in (0, graph.images), name, "it joins images of other videos")
        for operand in op.streams:
            own = op.streams.count(operand) == 1 and graph.graph.out_degree(operand) == 1
            _require(own, name, f"it shares '{operand}' with another reader")
            _require(not graph.op(operand).adds, name, f"its operand '{operand}' has addends")


def verify_network(network: Network, tensors: Mapping[str, np.ndarray]) -> None:
    """What the reader of a program checks, and the integer types that the passes promise."""
    try:
        check_network(network, tensors)
    except ValueError as error:
        raise VerifierError(network.name, str(error)) from None
    for name, linear in network.linears.items():
        _require(tensors[linear.weight].dtype == np.int8, name, "its weight is not int8")
        if linear.out:
            multiplier = tensors[linear.multiplier]
            fits = ((multiplier > 0) & (multiplier < MULTIPLIER_LIMIT)).all()
            _require(fits, name, f"a multiplier exceeds {MULTIPLIER_BITS} bits")
    for name, stream in network.streams.items():
        _require(tensors[stream.table].dtype == np.int32, name, "its table is not int32")
