"""Small random networks that are legal in every detail, with scales at which little saturates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from signmask.hw.spec.network import Knobs, Network
from tests.network_builder import CODE_DEVIATION, Built, NetworkBuilder, placed


def minimal(seed: int = 0, knobs: Knobs | None = None, steps: int = 4, size: int = 4) -> Built:
    """Two convolutions with a ReLU between them; neither channel count fills a group of 16."""
    b = NetworkBuilder("minimal", seed, steps, knobs or Knobs())
    b.source("input", 3, size, size)
    b.stream("hidden", 20, size, size)
    b.linear("conv_in", "input", "hidden")
    b.encoding("relu", ("hidden",), activation="relu")
    b.linear("conv_out", "relu", channels=3)
    return b.build()


def residual(seed: int = 0, knobs: Knobs | None = None, steps: int = 4, size: int = 6) -> Built:
    """Norm, segmented SiLU, a residual add and a 32-bit stream; all channels fill their groups."""
    b = NetworkBuilder("residual", seed, steps, knobs or Knobs())
    b.source("input", 16, size, size)
    b.stream("stem", 32, size, size, bits=32)
    b.linear("conv_in", "input", "stem")
    b.encoding("act_1", ("stem",), groups=4, activation="silu")
    b.stream("body", 16, size, size)
    b.linear("conv_1", "act_1", "body")
    b.encoding("act_2", ("body",), groups=8, activation="silu", stat_shift=2)
    b.stream("joined", 32, size, size, adds=("stem",), bits=32)
    b.linear("conv_2", "act_2", "joined")
    b.encoding("act_out", ("joined",), groups=4, activation="silu")
    b.linear("conv_out", "act_out", channels=16)
    return b.build()


def unet(
    seed: int = 0, knobs: Knobs | None = None, steps: int = 5, size: int = 8,
    channels: tuple[int, int] = (24, 40),
) -> Built:  # fmt: skip
    """Everything at once: residuals, a concat of unequal streams, stride 2, attention, upsampling.

    The default channels need padding at the end and in the middle of the concat.
    """
    narrow, wide = channels
    half = size // 2
    b = NetworkBuilder("unet", seed, steps, knobs or Knobs())
    b.source("input", 4, size, size)
    b.stream("stem", narrow, size, size)
    b.linear("conv_in", "input", "stem")
    b.encoding("act_1", ("stem",), groups=4, activation="silu")
    b.stream("down_1", narrow, size, size)
    b.linear("conv_1", "act_1", "down_1")
    b.encoding("act_2", ("down_1",), groups=4, activation="silu")
    b.stream("skip", narrow, size, size, adds=("stem",))
    b.linear("conv_2", "act_2", "skip")
    b.encoding("plain_down", ("skip",))
    b.stream("middle", wide, half, half)
    b.linear("conv_down", "plain_down", "middle", stride=2)
    b.encoding("normed", ("middle",), groups=8)
    for part in "qkv":
        b.stream(part, wide, 1, half * half)
        b.linear(f"to_{part}", "normed", part, kernel=1)
    b.attention("attend", "q", "k", "v", "attended", heads=2)
    b.stream("mixed", wide, half, half, adds=("middle",))
    b.linear("to_out", "attended", "mixed", kernel=1)
    b.encoding("plain_up", ("mixed",))
    b.stream("up", wide, size, size)
    b.linear("conv_up", "plain_up", "up", upsample=2)
    b.encoding("act_3", ("up", "skip"), groups=4, activation="silu")
    b.encoding("plain_join", ("up", "skip"))
    b.stream("last", narrow, size, size)
    b.linear("conv_3", "act_3", "last")
    b.linear("shortcut", "plain_join", "last", kernel=1)
    b.encoding("act_out", ("last",), groups=4, activation="silu")
    b.linear("conv_out", "act_out", channels=4)
    return b.build()


def transformer(
    seed: int = 0, knobs: Knobs | None = None, steps: int = 4, size: int = 4, rows: int = 1,
) -> Built:  # fmt: skip
    """Layer and RMS norms, constants per step, a position embedding, self-attention and
    cross-attention, a gated unit, grouped and depthwise operators, a group norm with a gain per
    step."""
    b = NetworkBuilder("transformer", seed, steps, knobs or Knobs())
    tokens = size * size
    b.source("input", 4, size, size)
    b.stream("stem", 32, size, size, offset=1)
    b.linear("conv_in", "input", "stem")
    b.encoding("ada", ("stem",), token="layer", changing=True)
    for part in "qkv":
        b.stream(part, 32, 1, tokens)
        b.linear(f"to_{part}", "ada", part, kernel=1)
    b.attention("attend", "q", "k", "v", "attended", heads=2)
    b.stream("self", 32, size, size)
    b.linear("to_out", "attended", "self", kernel=1)
    b.encoding("gate", ("self",), changing=True)
    b.stream("gated", 32, size, size, adds=("stem",))
    b.linear("diagonal", "gate", "gated", kernel=1, groups=32)
    b.encoding("layer", ("gated",), token="layer")
    b.stream("queries", 32, 1, tokens)
    b.linear("to_queries", "layer", "queries", kernel=1)
    b.attention("cross", "queries", "", "", "crossed", heads=2, rows=rows, tokens=7)
    b.stream("after", 32, size, size, adds=("gated",))
    b.linear("from_cross", "crossed", "after", kernel=1)
    b.encoding("rms", ("after",), token="rms", stat_shift=1)
    b.stream("left", 40, size, size)
    b.linear("to_left", "rms", "left", kernel=1)
    b.stream("right", 40, size, size)
    b.linear("to_right", "rms", "right", kernel=1)
    b.encoding("value", ("left",), factor=True)
    b.encoding("gelu", ("right",), activation="silu", factor=True)
    b.product("glu", "value", "gelu", "unit")
    b.stream("fed", 32, size, size, adds=("after",))
    b.linear("from_unit", "unit", "fed", kernel=1)
    b.encoding("scaled", ("fed",), groups=4, activation="silu", changing=True)
    b.stream("grouped", 48, size, size)
    b.linear("conv_grouped", "scaled", "grouped", groups=2)
    b.encoding("act", ("grouped", "fed"), groups=5, activation="silu")
    b.stream("depth", 80, size, size)
    b.linear("conv_depth", "act", "depth", groups=80)
    b.encoding("act_out", ("depth",), groups=4, activation="relu")
    b.linear("conv_out", "act_out", channels=4)
    return b.build()


def video(
    seed: int = 0, knobs: Knobs | None = None, steps: int = 4, size: int = 4, frames: int = 3,
) -> Built:  # fmt: skip
    """Frames with positions of their own, attention within and over the frames of a video."""
    b = NetworkBuilder("video", seed, steps, knobs or Knobs())
    b.source("input", 16, size, size)
    b.stream("stem", 32, size, size, offset=frames)
    b.linear("conv_in", "input", "stem")
    joined = "stem"
    for kind, count in (("space", 0), ("time", frames)):
        b.encoding(f"{kind}_norm", (joined,), token="layer")
        for part in "qkv":
            b.stream(f"{kind}_{part}", 32, size, size)
            b.linear(f"{kind}_to_{part}", f"{kind}_norm", f"{kind}_{part}", kernel=1)
        names = (f"{kind}_{part}" for part in "qkv")
        b.attention(f"{kind}_attention", *names, f"{kind}_out", heads=2, frames=count)
        b.stream(f"{kind}_sum", 32, size, size, adds=(joined,))
        b.linear(f"{kind}_to_out", f"{kind}_out", f"{kind}_sum", kernel=1)
        joined = f"{kind}_sum"
    b.encoding("act_out", (joined,), groups=4, activation="relu")
    b.linear("conv_out", "act_out", channels=16)
    return b.build()


def labelled(
    seed: int = 0, knobs: Knobs | None = None, steps: int = 4, size: int = 4, images: int = 2,
) -> Built:  # fmt: skip
    """Images with conditions of their own: in the tables of streams that are summed, normalised and
    joined, and in the scales that follow a norm of tokens and none. No channels fill a group."""
    b = NetworkBuilder("labelled", seed, steps, knobs or Knobs())
    b.images = images
    b.source("input", 3, size, size)
    b.stream("stem", 20, size, size, own=True)
    b.linear("conv_in", "input", "stem")
    b.encoding("act_1", ("stem",), groups=4, activation="silu")
    b.stream("body", 20, size, size, adds=("stem",), own=True)
    b.linear("conv_1", "act_1", "body")
    b.linear("conv_1b", "act_1", "body", kernel=1)
    b.encoding("modulated", ("body",), token="layer", own=True)
    b.stream("branch", 36, size, size)
    b.linear("conv_2", "modulated", "branch")
    b.encoding("gated", ("branch",), own=True)
    b.stream("joined", 20, size, size, adds=("body",))
    b.linear("conv_3", "gated", "joined")
    b.encoding("act_out", ("joined",), groups=4, activation="silu")
    b.linear("conv_out", "act_out", channels=3)
    return b.build()


NETWORKS = {
    "minimal": minimal, "residual": residual, "unet": unet, "transformer": transformer,
}  # fmt: skip


def with_knobs(built: Built, **knobs: object) -> Built:
    """The same network and tensors under other knobs that need no other tensors (not mask_bits or
    grid_bits); encodings follow the dataflow."""
    network, tensors = built
    chosen = replace(network.knobs, **knobs)  # type: ignore[arg-type]
    flow, factors = chosen.dataflow, network.multiplied()
    return replace(
        network,
        knobs=chosen,
        encodings={
            n: placed(e, chosen, n in factors, tensors) for n, e in network.encodings.items()
        },
        sources={
            n: replace(s, mode="dense" if flow == "dense" else "restore")
            for n, s in network.sources.items()
        },
    ), tensors


def input_codes(network: Network, batch: int, seed: int = 0, change: float = 0.1) -> np.ndarray:
    """int8 (steps, batch, height, width, channels) of slowly changing input."""
    rng = np.random.default_rng(seed)
    source = network.sources[network.input]
    shape = (batch, source.height, source.width, source.channels)
    values = [rng.normal(size=shape)]
    for _ in range(network.steps - 1):
        values.append(values[-1] * (1 - change**2) ** 0.5 + change * rng.normal(size=shape))
    codes = np.rint(np.stack(values) * CODE_DEVIATION) + source.zero
    return np.clip(codes, -128, 127).astype(np.int8)
