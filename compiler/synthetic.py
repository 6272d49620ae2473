"""What is assumed of a network that nobody has run: weights without numbers, and statistics without
a sample.

Statistics `unit-normal`: every tensor is normally distributed and independent of its neighbours.
The sample has variance 1. The result of a Linear has the variance that its weights and the second
moment of its input give, or 1 where the weights are absent; a stream adds up the variances of its
Linears and addends, around the mean that its table gives. An attention's product has the variance
of its values, an elementwise product that of independent factors.
"""

from __future__ import annotations

import numpy as np

from signmask.compiler.activation_fit import activation_value
from signmask.compiler.calibration import Calibration
from signmask.compiler.graph import (
    AttentionOp,
    EncodingOp,
    InputOp,
    LinearOp,
    NormOp,
    ProductOp,
    StreamOp,
    TensorGraph,
)

UNIT_NORMAL = "unit-normal"
REACH = 6.0  # standard deviations on either side that a histogram covers
SMALLEST = 1e-12  # variance of a tensor that is zero everywhere


def absent(shape: tuple[int, ...]) -> np.ndarray:
    """Float32 weights that are not there: zeros that take no memory. Read-only."""
    return np.broadcast_to(np.float32(0), shape)


def is_absent(weight: np.ndarray) -> bool:
    """Whether an array holds one number for all its elements, as `absent` makes it."""
    return weight.size > 1 and not any(
        stride for stride, size in zip(weight.strides, weight.shape, strict=True) if size > 1
    )


def lacks_weights(graph: TensorGraph) -> bool:
    """Whether any Linear of the graph is without weights."""
    return any(is_absent(op.weight) for _, op in graph.of(LinearOp))


def unit_normal(graph: TensorGraph) -> Calibration:
    """Statistics of a graph from its weights and tables alone; nothing is sampled."""
    return _Assumption(graph).calibration()


class _Assumption:
    """Mean and variance of every tensor, in execution order."""

    def __init__(self, graph: TensorGraph) -> None:
        self.graph = graph
        self.steps = len(graph.timesteps)
        self.variance: dict[str, float] = {}
        self.mean: dict[str, np.ndarray] = {}  # of streams, (steps, channels)
        self.moment: dict[str, float] = {}  # second moment of what Linears read
        self.result = Calibration(graph.timesteps)

    def calibration(self) -> Calibration:
        """Walk the graph once."""
        for name in self.graph.order():
            op = self.graph.op(name)
            if isinstance(op, InputOp):
                self._source(name, 1.0)
            elif isinstance(op, LinearOp):
                self.variance[name] = self._linear(op)
            elif isinstance(op, StreamOp):
                self._stream(name, op)
            elif isinstance(op, EncodingOp):
                self._encoding(name, op)
            elif isinstance(op, AttentionOp):
                self._attention(name, op)
            elif isinstance(op, ProductOp):
                self._source(name, self.moment[op.a] * self.moment[op.b])
        return self.result

    def _linear(self, op: LinearOp) -> float:
        if is_absent(op.weight):
            return 1.0
        flat = np.ascontiguousarray(op.weight).reshape(-1)
        per_output = float(np.dot(flat, flat)) / len(op.weight)
        return max(per_output * self.moment[op.source], SMALLEST)

    def _stream(self, name: str, op: StreamOp) -> None:
        self.variance[name] = max(
            sum(self.variance[other] for other in (*op.linears, *op.adds)), SMALLEST
        )
        mean = op.table.mean(1) + sum(self.mean[other] for other in op.adds)
        self.mean[name] = self.result.channel_mean[name] = np.asarray(mean, np.float64)
        low, high = self._extremes(name, op)
        self.result.ranges[name] = np.array([low, high])

    def _extremes(self, name: str, op: StreamOp) -> tuple[float, float]:
        reach = REACH * self.variance[name] ** 0.5
        offset = (0.0,) if op.offset is None else (op.offset.min(), op.offset.max())
        mean = self.mean[name]
        return float(mean.min() + min(offset) - reach), float(mean.max() + max(offset) + reach)

    def _encoding(self, name: str, op: EncodingOp) -> None:
        mean = np.concatenate([self.mean[s] for s in op.streams], axis=1)
        channels = [self.graph.op(s).channels for s in op.streams]
        variance = np.repeat([self.variance[s] for s in op.streams], channels)[None]
        if op.norm is not None:
            mean, variance = self._normalise(name, op.norm, mean, variance)
        if op.affine is not None:
            mean = (op.affine.gain * mean[:, None] + op.affine.offset).mean(1)
            variance = (op.affine.gain**2).mean(1) * variance
        centre = float(mean.mean())
        spread = float(np.mean(variance)) + float(mean.var())
        values, weight = self._count(name, centre, max(spread, SMALLEST))
        activated = activation_value(op.activation, values)
        self.moment[name] = float((activated**2 * weight).sum() / weight.sum())

    def _normalise(
        self, name: str, norm: NormOp, mean: np.ndarray, variance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance per channel after a norm; its group statistics are recorded."""
        grouped = mean.reshape(len(mean), norm.groups, -1)
        inner = np.broadcast_to(variance, mean.shape).reshape(grouped.shape).mean(2)
        centre = grouped.mean(2) if norm.centred else np.zeros(inner.shape)
        deviation = np.sqrt(inner + (grouped - centre[:, :, None]).mean(2) ** 2
                            + grouped.var(2) + norm.epsilon)  # fmt: skip
        self.result.group_mean[name] = centre
        self.result.group_deviation[name] = deviation
        scaled = ((grouped - centre[:, :, None]) / deviation[:, :, None]).reshape(mean.shape)
        per_channel = np.repeat(deviation, grouped.shape[2], axis=1)
        weight, bias = (x.mean(1) if x.ndim == 3 else x for x in (norm.weight, norm.bias))
        weight = weight * np.ones(mean.shape)
        return scaled * weight + bias, variance / per_channel**2 * weight**2

    def _attention(self, name: str, op: AttentionOp) -> None:
        for stream in op.streams:
            mean = self.mean[stream]
            self._count(stream, float(mean.mean()), self.variance[stream] + float(mean.var()))
        if op.values is None:
            mean = self.mean[op.v]
            moment = self.variance[op.v] + float((mean**2).mean())
        else:
            moment = float((op.values.astype(np.float64) ** 2).mean())
        self._source(name, moment or 1.0)

    def _source(self, name: str, moment: float) -> None:
        self.moment[name] = max(moment, SMALLEST)
        self._count(name, 0.0, self.moment[name])

    def _count(self, name: str, mean: float, variance: float) -> tuple[np.ndarray, np.ndarray]:
        """Record the histogram of a normal distribution; its bin centres and counts."""
        deviation = max(variance, SMALLEST) ** 0.5
        span = mean - REACH * deviation, mean + REACH * deviation
        self.result.ranges[name] = np.array(span)
        values = self.result.centres(name)
        weight = np.exp(-0.5 * ((values - mean) / deviation) ** 2)
        self.result.histograms[name] = weight * (1e6 / weight.sum())
        return values, self.result.histograms[name]
