"""The golden model's network on Triton kernels: a backend of the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from signmask.hw.spec import numerics
from signmask.hw.spec.network import Network
from signmask.hw.spec.step import StepResult
from signmask.reference.attention import AttentionOperator
from signmask.reference.encoding import EncodingOperator
from signmask.reference.product import product_operators
from signmask.reference.tensors import TensorReader, check_input
from signmask.reference.triton.attention import TritonAttention
from signmask.reference.triton.device import find_device
from signmask.reference.triton.encode import Activation, Encoded, Format
from signmask.reference.triton.errors import GpuError
from signmask.reference.triton.layout import Columns
from signmask.reference.triton.linear import TritonLinear
from signmask.reference.triton.step import TritonStep
from signmask.reference.triton.tiles import Geometry

Z_LIMIT = 1 << numerics.Z_BITS  # a break beyond every z is any break beyond every z


class TritonOperators:
    """Operators and tables of a network on one device, for one batch.

    The compiler proves that slopes, gains and multipliers fit 32 bits (`hw.spec.widths`)."""

    def __init__(
        self, network: Network, tensors: Mapping[str, np.ndarray], batch: int, device: torch.device
    ) -> None:
        self.network, self.batch, self.device = network, batch, device
        knobs = network.knobs
        read = TensorReader(tensors, device)
        self.tables = {
            name: read.images(stream.table, network.steps, batch, stream.channels)
            .flatten(1, 3)
            .int()
            for name, stream in network.streams.items()
        }
        self.offsets = {
            name: read(stream.offset, -1, stream.height * stream.width, stream.channels).int()
            for name, stream in network.streams.items()
            if stream.offset
        }
        self.stat_shifts = {
            name: encoding.norm.stat_shift
            for encoding in network.encodings.values()
            if encoding.norm
            for name in encoding.streams
        }
        self.encodings = {
            name: EncodingOperator(encoding, network.steps, batch, read)
            for name, encoding in network.encodings.items()
        }
        self.activations = {
            name: Activation(
                operator.breaks.clamp(-Z_LIMIT, Z_LIMIT).int(), operator.slopes.int(),
                operator.intercepts, operator.encoding.z_shift,
                operator.encoding.code_shift, operator.encoding.low, operator.encoding.high,
            )
            for name, operator in self.encodings.items()
        }  # fmt: skip
        parts = {name: (source.channels,) for name, source in network.sources.items()} | {
            name: tuple(network.streams[s].channels for s in encoding.streams)
            for name, encoding in network.encodings.items()
        }
        self.formats = {
            name: Format(
                Columns(channels, knobs.group), knobs.inlier_bits, knobs.full_lanes,
                knobs.overflow == "spill",
            )
            for name, channels in parts.items()
        }  # fmt: skip
        self.linears = {}
        self.multipliers = {}
        self.producers: dict[str, list[str]] = {name: [] for name in network.streams}
        for name, linear in network.linears.items():
            geometry = Geometry.of(linear, network.shape_of(linear.source), batch)
            weight = torch.from_numpy(np.array(tensors[linear.weight])).to(device)
            columns = self.formats[linear.source].columns
            self.linears[name] = TritonLinear(weight, geometry, columns, linear.groups)
            if linear.out:
                self.multipliers[name] = read(linear.multiplier, linear.out_channels).int()
                self.producers[linear.out].append(name)
            else:
                self.output = name
        self.attentions = {
            name: TritonAttention(
                AttentionOperator(item, network.sources[item.out], batch, read, device),
                network.streams[item.q].height * network.streams[item.q].width,
            )
            for name, item in network.attentions.items()
        }
        self.products = product_operators(network)


@dataclass
class TritonState:
    """What stays on the device between steps, as of step `last`.

    y and sums of streams (`stream.update_stream`), encodings and sources with their x^, codes of
    sources int8 (positions, channels), accumulators int32 (outputs, channels).
    """

    last: int
    y: dict[str, Tensor] = field(default_factory=dict)
    sums: dict[str, Tensor] = field(default_factory=dict)
    encoded: dict[str, Encoded] = field(default_factory=dict)
    codes: dict[str, Tensor] = field(default_factory=dict)
    accumulators: dict[str, Tensor] = field(default_factory=dict)


class TritonModel:
    """Steps of one quantised network on one batch, bit for bit those of the golden model.

    State is updated in place: after a step that raised, the next one must be dense. Constants of
    group norms, token norms and products of encodings are torch operators on the same device.

    Raises GpuError without Triton or a device, and for a network that only the golden model runs.
    """

    def __init__(self, network: Network, tensors: Mapping[str, np.ndarray], batch: int) -> None:
        if network.knobs.dataflow == "mask" and network.knobs.norm == "live":
            raise GpuError(
                f"network '{network.name}' has live norm in mask steps, which only the backend "
                "'reference' executes; choose it, or compile with norm trend."
            )
        self.network, self.batch = network, batch
        self._operators = TritonOperators(network, tensors, batch, find_device())
        self._state: TritonState | None = None

    def dense_step(self, index: int, codes: np.ndarray) -> StepResult:
        """Step `index` on raw input codes, int8 (batch, height, width, channels)."""
        return self._step(index, codes, None)

    def delta_step(self, index: int, codes: np.ndarray) -> StepResult:
        """The same as a difference to the step executed last; in a dense program a dense step.
        Raises RuntimeError where no whole step came before."""
        if self.network.knobs.dataflow == "dense":
            return self.dense_step(index, codes)
        if self._state is None:
            raise RuntimeError(
                f"delta step {index} of network '{self.network.name}' has no step before it; "
                "execute a dense step first."
            )
        return self._step(index, codes, self._state)

    def _step(self, index: int, codes: np.ndarray, last: TritonState | None) -> StepResult:
        check_input(self.network, self.batch, index, codes)
        self._state = None
        flat = torch.from_numpy(codes.reshape(-1, codes.shape[-1]).copy())
        step = TritonStep(self._operators, TritonState(index), last)
        self._state = step.run(flat.to(self._operators.device))
        linear = self.network.linears[self._operators.output]
        result = self._state.accumulators[self._operators.output].cpu().numpy()
        shape = (self.batch, linear.out_height, linear.out_width, linear.out_channels)
        return StepResult(result.reshape(shape).copy(), step.counters())
