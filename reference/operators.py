"""The operators of one network, built once and used by every step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from signmask.hw.spec.network import Network
from signmask.hw.spec.network_check import check_order
from signmask.reference.attention import AttentionOperator
from signmask.reference.delta_encoder import DeltaEncoder
from signmask.reference.encoding import EncodingOperator
from signmask.reference.linear import LinearOperator
from signmask.reference.product import product_operators
from signmask.reference.tensors import TensorReader

Observer = Callable[[str, str, Tensor], None]


class Operators:
    """Operators and per-step tables of a network by name, for one batch.

    `producers` lists the linear operators that write each stream, `output` names the one that
    writes the result. Raises ValueError where the network contradicts itself or lacks a tensor.
    """

    def __init__(
        self,
        network: Network,
        tensors: Mapping[str, np.ndarray],
        batch: int,
        observer: Observer | None,
        device: torch.device,
    ) -> None:
        self.network, self.batch, self.observer = network, batch, observer
        read = TensorReader(tensors, device)
        self.tables = {
            name: read.images(stream.table, network.steps, batch, stream.channels)
            for name, stream in network.streams.items()
        }
        self.linears = {
            name: LinearOperator(linear, network.shape_of(linear.source), read)
            for name, linear in network.linears.items()
        }
        self.encodings = {
            name: EncodingOperator(encoding, network.steps, batch, read)
            for name, encoding in network.encodings.items()
        }
        self.attentions = {
            name: AttentionOperator(attention, network.sources[attention.out], batch, read, device)
            for name, attention in network.attentions.items()
        }
        self.products = product_operators(network)
        self.offsets = {
            name: read(stream.offset, -1, stream.height * stream.width, stream.channels)
            for name, stream in network.streams.items()
            if stream.offset
        }
        self.producers: dict[str, list[str]] = {name: [] for name in network.streams}
        for name, linear in network.linears.items():
            if linear.out:
                self.producers[linear.out].append(name)
        outputs = [name for name, linear in network.linears.items() if not linear.out]
        self._check(outputs)
        self.output = outputs[0]
        self.encoders = self._make_encoders()

    def _check(self, outputs: list[str]) -> None:
        network = self.network
        if len(outputs) != 1:
            raise ValueError(
                f"network '{network.name}' has {len(outputs)} output operators; it needs one."
            )
        check_order(network)
        if network.knobs.dataflow == "restore":
            masked = [n for n, encoding in network.encodings.items() if encoding.mode == "mask"]
            if masked:
                raise ValueError(
                    f"encoding '{masked[0]}' has mode mask in a restoring program; place it again."
                )

    def _make_encoders(self) -> dict[str, DeltaEncoder]:
        network, knobs = self.network, self.network.knobs
        shapes: dict[str, tuple[int, ...]] = {
            name: (source.channels,) for name, source in network.sources.items()
        }
        for name, encoding in network.encodings.items():
            shapes[name] = tuple(network.streams[s].channels for s in encoding.streams)
            if sum(shapes[name]) != encoding.channels:
                raise ValueError(
                    f"encoding '{name}' has {encoding.channels} channels, its streams "
                    f"{sum(shapes[name])}; compile the network again."
                )
        return {
            name: DeltaEncoder(
                shape, knobs.group, knobs.inlier_bits, knobs.full_lanes, knobs.overflow == "spill"
            )
            for name, shape in shapes.items()
        }

    def note(self, kind: str, name: str, value: Tensor) -> None:
        """Show a tensor to the observer."""
        if self.observer is not None:
            self.observer(kind, name, value)
