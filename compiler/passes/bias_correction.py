"""Bias correction. Needs: a Network, the TensorGraph it came from and a calibration with inputs.
Guarantees: at each step every stream and the output have the float network's channel means on the
calibration inputs; only tables have changed.
"""

from __future__ import annotations

import numpy as np
import torch

from signmask.compiler.calibration import Calibration, Progress
from signmask.compiler.emulation import DenseEmulator
from signmask.compiler.float_model import FloatModel
from signmask.compiler.graph import StreamOp, TensorGraph
from signmask.compiler.passes.constants import Tensors
from signmask.hw.spec.network import CodeSource, Network


def input_codes(sample: torch.Tensor, source: CodeSource) -> torch.Tensor:
    """int64 (N, codes, H, W) of a float sample (N, C, H, W), as the host gives them."""
    spread = source.spread
    values = (sample.double() / source.scale).round() + source.zero * spread
    values = values.clamp(-128 * spread, 127 * spread).to(torch.int64)
    return torch.cat([(values + copy) // spread for copy in range(spread)], 1)


def correct_bias(
    network: Network, tensors: Tensors, graph: TensorGraph, calibration: Calibration,
    images: int = 8, progress: Progress | None = None,
) -> None:  # fmt: skip
    """Move channel mean errors into the tables, stream by stream in execution order, so that each
    correction sees the ones before it. Changes `tensors` in place."""
    model, emulator = FloatModel(graph), DenseEmulator(network, tensors)
    streams = {n for n, _ in graph.of(StreamOp)}
    source = network.sources[network.input]
    images = -(-images // graph.images) * graph.images
    for step in range(network.steps):
        sample = torch.from_numpy(calibration.inputs[step, :images])
        means: dict[str, torch.Tensor] = {}

        def observe(name: str, x: torch.Tensor, means: dict[str, torch.Tensor] = means) -> None:
            if name in streams:
                means[name] = x.double().mean((0, 2, 3))

        def adjust(
            name: str, y: torch.Tensor, means: dict[str, torch.Tensor] = means, step: int = step
        ) -> torch.Tensor:
            error = means[name] / network.streams[name].scale - y.double().mean((0, 2, 3))
            move = error.round().to(torch.int64)
            tensors[network.streams[name].table][step] += move.numpy().astype(np.int32)
            return y + move[None, :, None, None]

        expected = model.accumulate(sample, step, observe)
        result = emulator(input_codes(sample, source), step, adjust)
        reached = result.double().mean((0, 2, 3)).numpy() * tensors["output_scale"]
        tensors["output_table"][step] = expected.double().mean((0, 2, 3)).numpy() - reached
        if progress is not None:
            progress("correct bias", (step + 1) / network.steps)
