"""What a call of the exported program computes, in terms of streams and code sources."""

from __future__ import annotations

from dataclasses import dataclass

from signmask.compiler.graph import Activation, NormOp
from signmask.compiler.layout import Layout


@dataclass(frozen=True)
class Value:
    """`streams` (concatenated) or a code `source`, normalised, activated and enlarged in that
    order. `exclusive`: nobody else uses the stream, so it may be merged."""

    layout: Layout
    streams: tuple[str, ...] = ()
    source: str = ""
    norm: NormOp | None = None
    activation: Activation = "identity"
    upsample: int = 1
    exclusive: bool = False

    @property
    def is_raw(self) -> bool:
        """Streams as they are: nothing is to be done to them before they are read."""
        return (
            bool(self.streams)
            and self.norm is None
            and self.activation == "identity"
            and self.upsample == 1
        )

    @property
    def is_stream(self) -> bool:
        """One raw tensor, as residual additions need."""
        return self.is_raw and len(self.streams) == 1

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) before enlargement."""
        return (
            self.layout.sizes["h"] // self.upsample,
            self.layout.sizes["w"] // self.upsample,
        )


class Reject(Exception):
    """A call that cannot be fused: reason and remedy."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy
