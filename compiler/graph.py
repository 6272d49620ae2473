"""The compiler's two graphs, both networkx DiGraphs whose nodes carry an `op` object.

`CallGraph` holds the operators of an exported program; `TensorGraph` holds streams, encodings,
linear operators and attentions, in real numbers, with every shape channels-last.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import networkx as nx
import numpy as np
import torch

# Elementwise functions; `activation_fit.FUNCTIONS` has the float64 function of each name.
Activation = str


@dataclass(frozen=True)
class Ref:
    """A use of another node's result among the arguments of a call."""

    name: str


@dataclass
class Call:
    """One node of a CallGraph: `target` is None for inputs and parameters; `dtype` is that of its
    result, None where it is no tensor."""

    target: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: tuple[int, ...]
    trace: str = ""
    dtype: torch.dtype | None = None

    @property
    def operator(self) -> str:
        """Name without overload, for example 'aten.conv2d'."""
        if self.target is operator.getitem:
            return "getitem"
        return "" if self.target is None else str(self.target).rsplit(".", 1)[0]


@dataclass
class CallGraph:
    """Operators of an exported program; `parameters` hold every lifted tensor by node name, and
    `conditions` every input besides sample and timestep: constants of a compiled program."""

    graph: nx.DiGraph
    parameters: dict[str, torch.Tensor]
    sample: str
    timestep: str
    timestep_example: torch.Tensor
    output: str
    conditions: dict[str, torch.Tensor] = field(default_factory=dict)

    def call(self, name: str) -> Call:
        """The operator of a node."""
        return self.graph.nodes[name]["op"]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor of the model."""
        if name in self.parameters:
            return tuple(self.parameters[name].shape)
        return self.call(name).shape

    def dtype(self, name: str) -> torch.dtype | None:
        """The number format of a tensor of the model."""
        if name in self.parameters:
            return self.parameters[name].dtype
        return self.call(name).dtype


def refs(value: Any) -> Iterator[str]:
    """Names used anywhere inside (nested) arguments."""
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from refs(item)
    elif isinstance(value, dict):
        yield from refs(list(value.values()))


def substitute(value: Any, replace: Any) -> Any:
    """Arguments with each Ref replaced by replace(name)."""
    if isinstance(value, Ref):
        return replace(value.name)
    if isinstance(value, (list, tuple)):
        return type(value)(substitute(item, replace) for item in value)
    if isinstance(value, dict):
        return {key: substitute(item, replace) for key, item in value.items()}
    return value


@dataclass
class InputOp:
    """The network's input: codes given by the host."""

    channels: int
    height: int
    width: int


@dataclass
class StreamOp:
    """Raw tensor: sum of Linear results, of `adds`, of `table` float64 (steps, rows, channels), and
    of `offset` float64 (rows, height * width, channels) or None where no constant depends on the
    position. Constants have one row for all images, or one for each of TensorGraph.images."""

    channels: int
    height: int
    width: int
    table: np.ndarray
    adds: list[str] = field(default_factory=list)
    linears: list[str] = field(default_factory=list)
    offset: np.ndarray | None = None


@dataclass(eq=False)
class NormOp:
    """Group normalisation with scale `weight` and `bias`, float64 (channels,), or (steps, channels)
    where they depend on the timestep. `axis` "token": statistics of each position (layer norm),
    with (steps, images, channels) where they depend on the image; not `centred`: no mean is
    subtracted (RMS norm). Equal to itself alone: arrays have no truth value."""

    groups: int
    epsilon: float
    weight: np.ndarray
    bias: np.ndarray
    axis: Literal["image", "token"] = "image"
    centred: bool = True


@dataclass(eq=False)
class AffineOp:
    """gain * x + offset without statistics, float64 (steps, rows, channels) each, with rows as in
    StreamOp."""

    gain: np.ndarray
    offset: np.ndarray


@dataclass
class EncodingOp:
    """Concatenated streams, normalised or scaled (`affine`) if at all, then activated; quantised to
    int8 codes."""

    streams: tuple[str, ...]
    channels: int
    height: int
    width: int
    norm: NormOp | None = None
    activation: Activation = "identity"
    affine: AffineOp | None = None


@dataclass
class LinearOp:
    """Convolution of an encoding or source; `weight` float32 (out, in / groups, kernel, kernel).
    `out` is a stream, or empty for the network's output, whose (steps, channels) offset is
    `table`."""

    source: str
    out: str
    weight: np.ndarray
    stride: int = 1
    padding: int = 0
    upsample: int = 1
    table: np.ndarray | None = None
    groups: int = 1


@dataclass
class AttentionOp:
    """softmax(scale * Q K^T) V over all positions of the streams q, k, v; itself a code source.
    In cross-attention k and v are empty, and `keys`, `values` float32 (rows, tokens, channels) are
    constants, a row for each image of the batch or one for all. With `frames`, the images are those
    of videos, and attention is over the frames of a video at each position."""

    q: str
    k: str
    v: str
    heads: int
    scale: float
    channels: int
    height: int
    width: int
    keys: np.ndarray | None = None
    values: np.ndarray | None = None
    frames: int = 0

    @property
    def streams(self) -> tuple[str, ...]:
        """The raw streams that it reads."""
        return (self.q,) if self.keys is not None else (self.q, self.k, self.v)


@dataclass
class ProductOp:
    """Elementwise product of the encodings a and b, which nothing else reads; a code source."""

    a: str
    b: str
    channels: int
    height: int
    width: int


TensorOp = InputOp | StreamOp | EncodingOp | LinearOp | AttentionOp | ProductOp


@dataclass
class TensorGraph:
    """Fused network in real numbers; edges follow the data, node names are unique. `patch`: the
    output's channels are patch x patch pixels of each position, row by row, then channels. A batch
    is a multiple of `images`, those that belong together: frames that attention joins, or images
    with conditions of their own (1: none). Image i has the constants of row i modulo `images`."""

    graph: nx.DiGraph
    input: str
    output: str
    timesteps: tuple[int, ...]
    patch: int = 1
    images: int = 1

    def op(self, name: str) -> Any:
        """The operator of a node."""
        return self.graph.nodes[name]["op"]

    def of(self, kind: type) -> list[tuple[str, Any]]:
        """All (name, op) of one kind, in execution order."""
        return [(n, self.op(n)) for n in self.order() if isinstance(self.op(n), kind)]

    def order(self) -> list[str]:
        """Execution order: topological, ties by the order of insertion (deterministic)."""
        rank = {name: i for i, name in enumerate(self.graph)}
        return list(nx.lexicographical_topological_sort(self.graph, key=rank.__getitem__))

    def out_size(self, linear: LinearOp) -> tuple[int, int]:
        """(height, width) of a linear operator's result."""
        source = self.op(linear.source)
        kernel = linear.weight.shape[2]
        height, width = (
            (size * linear.upsample + 2 * linear.padding - kernel) // linear.stride + 1
            for size in (source.height, source.width)
        )
        return height, width
