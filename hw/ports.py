"""Signatures of the ports between units: scratchpad ports and counter events.

All are written as the unit sees them: the unit drives `Out` members.
"""

from __future__ import annotations

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


def address_bits(depth: int) -> int:
    """Bits that address `depth` words, at least 1."""
    return max(1, (depth - 1).bit_length())


class ReadPort(wiring.Signature):
    """Synchronous read: `en` and `addr` in cycle t give `data` in t + 1, until the next `en`."""

    def __init__(self, depth: int, width: int) -> None:
        self.depth, self.width = depth, width
        super().__init__({"en": Out(1), "addr": Out(address_bits(depth)), "data": In(width)})


class WritePort(wiring.Signature):
    """Write of the lanes whose bit in `lanes` is set; lane i has bits i*width/lanes onwards."""

    def __init__(self, depth: int, width: int, lanes: int) -> None:
        self.depth, self.width, self.lanes = depth, width, lanes
        super().__init__(
            {
                "en": Out(1),
                "addr": Out(address_bits(depth)),
                "data": Out(width),
                "lanes": Out(lanes),
            }
        )


class MovedEvent(wiring.Signature):
    """Bytes that one load or store instruction moved, of an `isa.Traffic` kind."""

    def __init__(self) -> None:
        super().__init__({"valid": Out(1), "kind": Out(4), "bytes": Out(32)})


class CountEvent(wiring.Signature):
    """`count` occurrences at source, stream or boundary number `index`."""

    def __init__(self, count_bits: int) -> None:
        self.count_bits = count_bits
        super().__init__({"valid": Out(1), "index": Out(12), "count": Out(count_bits)})


class DeltaEvent(wiring.Signature):
    """What one word of encoded deltas held, by class, at source number `index`."""

    def __init__(self) -> None:
        kinds = ("zero", "inlier", "outlier", "clipped", "elements")
        super().__init__({"valid": Out(1), "index": Out(12), **{kind: Out(8) for kind in kinds}})
