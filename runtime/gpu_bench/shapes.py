"""Layer shapes that the kernels are timed on: Stable Diffusion v1.4 and ADM at 256 x 256."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from signmask.runtime.architectures import architecture

SD, ADM = "sd-v1-4", "adm-256"


@dataclass(frozen=True)
class Shape:
    """A convolution of stride 1 that keeps the size, or with kernel 1 a product per position.

    model: a named architecture; layer: the module of its diffusers form; height, width: positions
    of an image (tokens of an attention block are those of its feature map).
    """

    model: str
    layer: str
    height: int
    width: int
    in_channels: int
    out_channels: int
    kernel: int = 1

    @property
    def name(self) -> str:
        """Short and unique among the shapes of a run."""
        kind = f"{self.kernel}x{self.kernel}" if self.kernel > 1 else "matmul"
        sizes = f"{self.height}x{self.width} {self.in_channels}>{self.out_channels}"
        return f"{self.model} {kind} {sizes}"

    @property
    def depth(self) -> int:
        """Multiply-accumulates of one result."""
        return self.in_channels * self.kernel**2

    def positions(self, images: int) -> int:
        """Positions of a batch."""
        return images * self.height * self.width

    def macs(self, images: int) -> int:
        """Multiply-accumulates of a batch."""
        return self.positions(images) * self.out_channels * self.depth


def layer_shapes(quick: bool = False) -> tuple[Shape, ...]:
    """Shapes of both models, largest feature maps first; quick: two of each model."""
    if not quick:
        return (*stable_diffusion(), *guided_diffusion())
    chosen = [shape for shape in stable_diffusion() if shape.height == 64][:2]
    return (*chosen, *[shape for shape in guided_diffusion() if shape.height in (64, 32)][:2])


def stable_diffusion() -> Iterator[Shape]:
    """By level: the second residual block's first convolution; in the three levels with attention
    the query projection, and both products of the gated feed-forward network, four times as wide
    inside (twice that with its gates)."""
    size, config = architecture(SD).sample[1], _configuration(SD)
    for level, channels in enumerate(config["block_out_channels"]):
        side = size >> level
        block = f"down_blocks.{level}"
        yield Shape(SD, f"{block}.resnets.1.conv1", side, side, channels, channels, 3)
        if config["down_block_types"][level] != "CrossAttnDownBlock2D":
            continue
        inner = f"{block}.attentions.0.transformer_blocks.0"
        yield Shape(SD, f"{inner}.attn1.to_q", side, side, channels, channels)
        yield Shape(SD, f"{inner}.ff.net.0.proj", side, side, channels, 8 * channels)
        yield Shape(SD, f"{inner}.ff.net.2", side, side, 4 * channels, channels)


def guided_diffusion() -> Iterator[Shape]:
    """By level: the second residual block's first convolution, and where the level has attention
    its query projection."""
    size, config = architecture(ADM).sample[1], _configuration(ADM)
    for level, channels in enumerate(config["block_out_channels"]):
        side = size >> level
        block = f"down_blocks.{level}"
        yield Shape(ADM, f"{block}.resnets.1.conv1", side, side, channels, channels, 3)
        if config["down_block_types"][level] == "AttnDownBlock2D":
            yield Shape(ADM, f"{block}.attentions.0.to_q", side, side, channels, channels)


def stream_shapes(shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """One shape for each size of result, first come: what encoders and epilogues depend on."""
    sizes: dict[tuple[int, int, int], Shape] = {}
    for shape in shapes:
        sizes.setdefault((shape.height, shape.width, shape.out_channels), shape)
    return tuple(sizes.values())


def _configuration(name: str) -> Any:
    return next(iter(architecture(name).parts.values()))[1]
