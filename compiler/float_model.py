"""Float32 execution of a TensorGraph, for calibration and for checking the front half."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn.functional import conv2d, group_norm, interpolate, softmax

from signmask.compiler.activation_fit import activate
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

Observer = Callable[[str, torch.Tensor], None]


class FloatModel:
    """Evaluates the graph on (N, C, H, W) tensors; sequences are (N, C, 1, tokens)."""

    def __init__(self, graph: TensorGraph) -> None:
        self.graph = graph
        self.order = [(n, graph.op(n)) for n in graph.order()]
        self.weights = {n: torch.from_numpy(op.weight) for n, op in graph.of(LinearOp)}

    def __call__(
        self, sample: torch.Tensor, step: int, observer: Observer | None = None
    ) -> torch.Tensor:
        """What the model returns at schedule index `step`, pixels in their places. `observer(name,
        tensor)` sees every raw stream, every pre-activation (under the encoding's name) and every
        source."""
        result, patch = self.accumulate(sample, step, observer), self.graph.patch
        if patch == 1:
            return result
        parts = result.unflatten(1, (patch, patch, -1)).permute(0, 3, 4, 1, 5, 2)
        return parts.flatten(4, 5).flatten(2, 3)

    @torch.no_grad()
    def accumulate(
        self, sample: torch.Tensor, step: int, observer: Observer | None = None
    ) -> torch.Tensor:
        """The same as the output operator writes it: a patch's pixels are channels."""
        values: dict[str, torch.Tensor] = {}
        for name, op in self.order:
            if isinstance(op, InputOp):
                values[name] = sample
            elif isinstance(op, LinearOp):
                values[name] = self._linear(name, op, values[op.source])
            elif isinstance(op, StreamOp):
                values[name] = self._stream(op, step, values, len(sample))
            elif isinstance(op, EncodingOp):
                raw = _scaled(op, torch.cat([values[s] for s in op.streams], 1), step)
                if observer is not None:
                    observer(name, raw)
                values[name] = activate(op.activation, raw)
                continue
            elif isinstance(op, AttentionOp):
                values[name] = self._attention(op, values)
            elif isinstance(op, ProductOp):
                values[name] = values[op.a] * values[op.b]
            if observer is not None:
                observer(name, values[name])
        output = self.graph.op(self.graph.output)
        return values[self.graph.output] + _channels(output.table[step], len(sample))

    def _linear(self, name: str, op: LinearOp, x: torch.Tensor) -> torch.Tensor:
        if op.upsample > 1:
            x = interpolate(x, scale_factor=op.upsample, mode="nearest")
        return conv2d(x, self.weights[name], None, op.stride, op.padding, groups=op.groups)

    @staticmethod
    def _stream(
        op: StreamOp, step: int, values: dict[str, torch.Tensor], images: int
    ) -> torch.Tensor:
        total = _channels(op.table[step], images)
        if op.offset is not None:
            offset = torch.from_numpy(op.offset).float().mT.unflatten(2, (op.height, op.width))
            total = total + _repeated(offset, images)
        for operand in (*op.linears, *op.adds):
            total = total + values[operand]
        return total

    @staticmethod
    def _attention(op: AttentionOp, values: dict[str, torch.Tensor]) -> torch.Tensor:
        operands = [_tokens(op, values[s]).unflatten(1, (op.heads, -1)) for s in op.streams]
        q = operands[0]
        if op.keys is None or op.values is None:
            k, v = operands[1:]
        else:
            k, v = (
                _repeated(torch.from_numpy(x).mT.unflatten(1, (op.heads, -1)), len(q))
                for x in (op.keys, op.values)
            )
        weights = softmax(op.scale * (q.mT @ k), -1)
        result = (v @ weights.mT).flatten(1, 2)
        if op.frames:
            positions = op.height * op.width
            result = result.unflatten(0, (-1, positions)).transpose(1, 3).flatten(0, 1)
        return result.unflatten(2, (op.height, op.width))


def _tokens(op: AttentionOp, x: torch.Tensor) -> torch.Tensor:
    """(rows, channels, tokens): positions of images, or frames at the positions of videos."""
    x = x.flatten(2)
    return x.unflatten(0, (-1, op.frames)).transpose(1, 3).flatten(0, 1) if op.frames else x


def _repeated(rows: torch.Tensor, images: int) -> torch.Tensor:
    """Row i modulo their number for each image; a single row as it is."""
    return rows if len(rows) == 1 else rows[torch.arange(images) % len(rows)]


def _channels(rows: np.ndarray, images: int) -> torch.Tensor:
    """(channels,) or (rows, channels) as float32 that broadcasts over positions."""
    return _repeated(torch.from_numpy(np.atleast_2d(rows)).float(), images)[:, :, None, None]


def _scaled(op: EncodingOp, raw: torch.Tensor, step: int) -> torch.Tensor:
    if op.norm is not None:
        return _normalised(op.norm, raw, step)
    if op.affine is not None:
        gain, offset = (_channels(x[step], len(raw)) for x in (op.affine.gain, op.affine.offset))
        return raw * gain + offset
    return raw


def _normalised(norm: NormOp, raw: torch.Tensor, step: int) -> torch.Tensor:
    weight, bias = (x[step] if x.ndim > 1 else x for x in (norm.weight, norm.bias))
    if norm.axis == "image":
        gain, offset = torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
        return group_norm(raw, norm.groups, gain, offset, norm.epsilon)
    if norm.centred:
        raw = raw - raw.mean(1, keepdim=True)
    raw = raw * torch.rsqrt(raw.square().mean(1, keepdim=True) + norm.epsilon)
    return raw * _channels(weight, len(raw)) + _channels(bias, len(raw))
