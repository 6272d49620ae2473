"""Float32 execution of a TensorGraph, for calibration and for checking the front half."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import conv2d, group_norm, interpolate, relu, silu, softmax

from signmask.compiler.graph import (
    AttentionOp,
    EncodingOp,
    InputOp,
    LinearOp,
    StreamOp,
    TensorGraph,
)

Observer = Callable[[str, torch.Tensor], None]


class FloatModel:
    """Evaluates the graph on (N, C, H, W) tensors; sequences are (N, C, 1, tokens)."""

    def __init__(self, graph: TensorGraph) -> None:
        self.graph = graph
        self.order = [(n, graph.op(n)) for n in graph.order()]
        self.weights = {n: torch.from_numpy(op.weight) for n, op in graph.of(LinearOp)}
        self.norms = {
            n: (torch.from_numpy(op.norm.weight).float(), torch.from_numpy(op.norm.bias).float())
            for n, op in graph.of(EncodingOp)
            if op.norm is not None
        }

    @torch.no_grad()
    def __call__(
        self, sample: torch.Tensor, step: int, observer: Observer | None = None
    ) -> torch.Tensor:
        """The predicted noise at schedule index `step`. `observer(name, tensor)` sees every raw
        stream, every normalised pre-activation (under the encoding's name) and every source."""
        values: dict[str, torch.Tensor] = {}
        for name, op in self.order:
            if isinstance(op, InputOp):
                values[name] = sample
            elif isinstance(op, LinearOp):
                values[name] = self._linear(name, op, values[op.source])
            elif isinstance(op, StreamOp):
                total = torch.from_numpy(op.table[step]).float()[None, :, None, None]
                for operand in (*op.linears, *op.adds):
                    total = total + values[operand]
                values[name] = total
            elif isinstance(op, EncodingOp):
                raw = torch.cat([values[s] for s in op.streams], 1)
                if op.norm is not None:
                    raw = group_norm(raw, op.norm.groups, *self.norms[name], op.norm.epsilon)
                if observer is not None:
                    observer(name, raw)
                values[name] = {"silu": silu, "relu": relu}.get(op.activation, lambda x: x)(raw)
                continue
            elif isinstance(op, AttentionOp):
                values[name] = self._attention(op, *(values[s] for s in (op.q, op.k, op.v)))
            if observer is not None:
                observer(name, values[name])
        output = self.graph.op(self.graph.output)
        return (
            values[self.graph.output]
            + torch.from_numpy(output.table[step]).float()[None, :, None, None]
        )

    def _linear(self, name: str, op: LinearOp, x: torch.Tensor) -> torch.Tensor:
        if op.upsample > 1:
            x = interpolate(x, scale_factor=op.upsample, mode="nearest")
        return conv2d(x, self.weights[name], None, op.stride, op.padding)

    @staticmethod
    def _attention(
        op: AttentionOp, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        q, k, v = (x.flatten(2).unflatten(1, (op.heads, -1)) for x in (q, k, v))
        weights = softmax(op.scale * (q.transpose(-1, -2) @ k), -1)
        result = v @ weights.transpose(-1, -2)
        return result.flatten(1, 2).unflatten(2, (op.height, op.width))
