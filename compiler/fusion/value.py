"""What a call of the exported program computes, in terms of streams and code sources."""

from __future__ import annotations

from dataclasses import dataclass

from signmask.compiler.graph import Activation, AffineOp, NormOp
from signmask.compiler.layout import Layout

Padding = tuple[int, int, int, int]
NO_PADDING: Padding = (0, 0, 0, 0)


@dataclass(frozen=True)
class Value:
    """`streams` (concatenated) or a code `source`, normalised or scaled (`affine`), activated,
    enlarged and padded with zeros (left, right, top, bottom) in that order. `exclusive`: nobody
    else uses the stream, so it may be merged."""

    layout: Layout
    streams: tuple[str, ...] = ()
    source: str = ""
    norm: NormOp | None = None
    affine: AffineOp | None = None
    activation: Activation = "identity"
    upsample: int = 1
    padding: Padding = NO_PADDING
    exclusive: bool = False

    @property
    def is_raw(self) -> bool:
        """Streams as they are: nothing is to be done to them before they are read."""
        return self.is_linear and self.norm is None and self.affine is None and self.upsample == 1

    @property
    def is_linear(self) -> bool:
        """Streams, normalised, scaled or enlarged at most: gain and offset may still be folded."""
        return bool(self.streams) and self.activation == "identity" and self.padding == NO_PADDING

    @property
    def is_stream(self) -> bool:
        """One raw tensor, as residual additions need."""
        return self.is_raw and len(self.streams) == 1

    @property
    def channels(self) -> int:
        """Channels in all."""
        return self.layout.sizes["c"]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) before enlargement and padding."""
        left, right, top, bottom = self.padding
        return (
            (self.layout.sizes["h"] - top - bottom) // self.upsample,
            (self.layout.sizes["w"] - left - right) // self.upsample,
        )


class Reject(Exception):
    """A call that cannot be fused: reason and remedy."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy
