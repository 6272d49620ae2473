"""Random legal networks, knobs and machines, as cases that Hypothesis shrinks and JSON keeps."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from math import gcd
from typing import Literal

from hypothesis import strategies as st

from signmask.hw.spec.config import NANO, HardwareConfig
from signmask.hw.spec.network import Knobs
from tests.network_builder import Built, NetworkBuilder

# One Verilator build each; small arrays, so that a program is a few thousand cycles.
MACHINES: dict[str, HardwareConfig] = {
    "small": replace(
        NANO, name="small", rows=4, columns=8, group=8, full_lanes=2, axi_bytes=16,
        near_data_bytes=32, input_words=4096, weight_words=4096, accumulator_words=4096,
        mask_words=2048, queue_depth=8,
    ),
    "wide": replace(
        NANO, name="wide", rows=4, columns=16, group=8, full_lanes=1, inlier_bits=4, axi_bytes=32,
        near_data_bytes=64, input_words=4096, weight_words=4096, accumulator_words=1024,
        mask_words=2048,
    ),
}  # fmt: skip
LATENCIES = (1, 7, 40, 100)
DATAFLOWS = ("dense", "restore", "mask")
LOOPS = ("closed", "open", "carry")


@dataclass(frozen=True)
class Block:
    """One convolution with what surrounds it."""

    channels: int
    kernel: int
    resample: int  # 0 as it is, 1 stride 2, 2 upsampling by 2
    split: int  # 0 an ordinary convolution, 1 of two groups, 2 of as many as divide both sides
    groups_log2: int  # norm groups as a power of two, or -1 for none
    token: Literal["", "layer", "rms"]  # norm of each position instead, of a single stream
    changing: bool  # scale and bias have a row for each step
    activation: str
    wide: bool  # 32-bit stream
    offset: bool  # the stream has a constant part that varies over positions
    residual: bool  # add the last stream of the same shape
    joined: bool  # then a sum of this stream and the one before of its shape, without a convolution
    concat: bool  # encode the last stream of the same size beside the own one
    attention: Literal["", "self", "cross", "frames"]
    gate: bool  # a gated linear unit
    own: bool = False  # images have tables, and scales without a norm of groups, of their own


@dataclass(frozen=True)
class Case:
    """One program, its data and its surroundings."""

    machine: str
    seed: int
    size: int
    input_channels: int
    blocks: tuple[Block, ...]
    dataflow: str
    loop: str
    norm: str
    overflow: str
    mask_bits: int
    grid_bits: int
    batch: int
    frames: int  # images of a video: the batch is a multiple
    phases: tuple[bool, ...]  # of the steps behind the first: whether they are dense
    change: float
    memory_latency: int
    near_data_latency: int
    stall_seed: int  # 0: no stalls, and cycles are compared

    def to_json(self) -> str:
        """For a file of a regression."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Case:
        """Inverse of `to_json`."""
        data = json.loads(text)
        blocks = tuple(Block(**block) for block in data.pop("blocks"))
        return cls(**{**data, "blocks": blocks, "phases": tuple(data["phases"])})

    @property
    def config(self) -> HardwareConfig:
        """The machine with the latencies of this case."""
        return replace(
            MACHINES[self.machine], memory_latency=self.memory_latency,
            near_data_latency=self.near_data_latency,
        )  # fmt: skip

    @property
    def knobs(self) -> Knobs:
        """Numerical choices."""
        config = MACHINES[self.machine]
        paper = self.norm == "calibrated"
        return Knobs(
            dataflow=self.dataflow, inlier_bits=config.inlier_bits, group=config.group,
            full_lanes=config.full_lanes, overflow=self.overflow, mask_bits=self.mask_bits,
            loop=self.loop, carry_bits=3 if self.loop == "carry" else 0,
            norm="calibrated" if paper else "trend", grid_bits=self.grid_bits,
        )  # type: ignore[arg-type]  # fmt: skip

    @property
    def stat_shift(self) -> int:
        """Right shift before sums, one for all streams."""
        return 2 if any(block.wide for block in self.blocks) else 0

    def network(self) -> Built:
        """The network and its tensors."""
        steps = 1 + len(self.phases)
        b = NetworkBuilder("fuzz", self.seed, steps, self.knobs)
        b.images = self.frames
        shapes: dict[str, tuple[int, int]] = {}  # stream: channels, size
        size = self.size
        operand = b.source("input", self.input_channels, size, size, zero=self.seed % 7 - 3)
        for i, block in enumerate(self.blocks):
            stride = 2 if block.resample == 1 and size > 1 else 1
            upsample = 2 if block.resample == 2 and size <= 4 else 1
            size = -(-size // stride) * upsample
            channels, name = block.channels, f"s{i}"
            same = [s for s, shape in shapes.items() if shape == (channels, size)]
            adds = (same[-1],) if block.residual and same else ()
            beside = [s for s, shape in shapes.items() if shape[1] == size and s not in adds]
            bits = 32 if block.wide else 16
            rows = 1 if self.seed & 2 else self.frames
            own = block.own and self.frames > 1
            b.stream(name, channels, size, size, adds, bits, rows if block.offset else 0, own)
            given = b.encodings.get(operand) or b.sources[operand]
            both = gcd(given.channels, channels)
            b.linear(
                f"conv{i}", operand, name, kernel=block.kernel, stride=stride, upsample=upsample,
                groups=(1, gcd(both, 2), both)[block.split],
            )  # fmt: skip
            shapes[name] = (channels, size)
            if block.attention and channels % 8 == 0 and size * size <= 64:
                name = self._attention(b, i, name, channels, size, block.attention)
                shapes[name] = (channels, size)
            if block.gate:
                name = self._gate(b, i, name, channels, size, block.token)
                shapes[name] = (channels, size)
            if block.joined and same:
                b.stream(f"j{i}", channels, size, size, (name, same[-1]), bits)
                name = f"j{i}"
                shapes[name] = (channels, size)
            streams = (name, beside[-1]) if block.concat and beside else (name,)
            total = sum(shapes[s][0] for s in streams)
            token: Literal["", "layer", "rms"] = block.token if len(streams) == 1 else ""
            groups = 0 if block.groups_log2 < 0 or token else 1 << block.groups_log2
            while groups > 1 and total % groups:
                groups //= 2
            operand = b.encoding(
                f"e{i}", streams, groups=groups, activation=block.activation,
                stat_shift=self.stat_shift, token=token, changing=block.changing,
                own=own and not groups,
            )  # fmt: skip
        b.linear("out", operand, channels=self.input_channels, kernel=3)
        return b.build()

    def _attention(
        self, b: NetworkBuilder, i: int, name: str, channels: int, size: int, kind: str
    ) -> str:
        """Attention of a stream's positions, added back to it: over these positions, over constant
        keys, or over the frames of a video."""
        operand = b.encoding(f"n{i}", (name,), groups=2, stat_shift=self.stat_shift)
        parts = [f"{part}{i}" for part in ("q" if kind == "cross" else "qkv")]
        for part in parts:
            b.stream(part, channels, 1, size * size)
            b.linear(f"to_{part}", operand, part, kernel=1)
        heads = 2 if self.seed % 2 and channels % 16 == 0 else 1
        if kind == "cross":
            rows = self.batch if self.seed & 4 else 1
            b.attention(f"a{i}", parts[0], "", "", f"t{i}", heads, rows, 1 + self.seed % 19)
        else:
            frames = self.frames if kind == "frames" and self.frames > 1 else 0
            b.attention(f"a{i}", parts[0], parts[1], parts[2], f"t{i}", heads, frames=frames)
        b.stream(f"m{i}", channels, size, size, (name,), b.streams[name].bits)
        b.linear(f"mix{i}", f"t{i}", f"m{i}", kernel=1)
        return f"m{i}"

    def _gate(
        self, b: NetworkBuilder, i: int, name: str, channels: int, size: int,
        token: Literal["", "layer", "rms"],
    ) -> str:  # fmt: skip
        """A gated linear unit of a stream, added back to it."""
        operand = b.encoding(f"g{i}", (name,), token=token, stat_shift=self.stat_shift)
        for part, activation in (("value", ""), ("gate", "silu")):
            b.stream(f"{part}{i}", 12, size, size)
            b.linear(f"to_{part}{i}", operand, f"{part}{i}", kernel=1)
            b.encoding(f"{part}_codes{i}", (f"{part}{i}",), activation=activation, factor=True)
        b.product(f"unit{i}", f"value_codes{i}", f"gate_codes{i}", f"p{i}")
        b.stream(f"f{i}", channels, size, size, (name,), b.streams[name].bits)
        b.linear(f"from_unit{i}", f"p{i}", f"f{i}", kernel=1)
        return f"f{i}"


BLOCKS = st.builds(
    Block,
    channels=st.sampled_from((8, 16, 4, 12, 20, 24)),
    kernel=st.sampled_from((1, 3)),
    resample=st.sampled_from((0, 0, 0, 1, 2)),
    split=st.sampled_from((0, 0, 1, 2)),
    groups_log2=st.integers(-1, 3),
    token=st.sampled_from(("", "", "", "layer", "rms")),
    changing=st.sampled_from((False, False, True)),
    activation=st.sampled_from(("", "relu", "silu")),
    wide=st.booleans(),
    offset=st.sampled_from((False, False, True)),
    residual=st.booleans(),
    joined=st.sampled_from((False, True)),
    concat=st.booleans(),
    attention=st.sampled_from(("", "", "", "self", "cross", "frames")),
    gate=st.sampled_from((False, False, True)),
    own=st.booleans(),
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any case; it shrinks towards one small block without stalls."""
    loop = draw(st.sampled_from(LOOPS))
    frames = draw(st.sampled_from((1, 1, 2, 3)))
    return Case(
        machine=draw(st.sampled_from(sorted(MACHINES))),
        seed=draw(st.integers(0, 1 << 16)),
        size=draw(st.integers(1, 8)),
        input_channels=draw(st.integers(1, 12)),
        blocks=tuple(draw(st.lists(BLOCKS, min_size=1, max_size=3))),
        dataflow=draw(st.sampled_from(("dense", "restore", "mask", "mask", "mask"))),
        loop=loop,
        norm=draw(st.sampled_from(("trend", "calibrated"))),
        overflow=draw(st.sampled_from(("spill", "clip"))),
        mask_bits=draw(st.integers(1, 3)),
        grid_bits=draw(st.sampled_from((4, 0, 2))),
        batch=frames * draw(st.integers(1, 3 if frames == 1 else 2)),
        frames=frames,
        phases=tuple(draw(st.lists(st.sampled_from((False, False, True)), min_size=1, max_size=3))),
        change=draw(st.sampled_from((0.1, 0.02, 0.5))),
        memory_latency=draw(st.sampled_from(LATENCIES)),
        near_data_latency=draw(st.sampled_from(LATENCIES)),
        stall_seed=draw(st.sampled_from((0, 0, 0, 1, 2, 3))),
    )
