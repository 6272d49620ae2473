"""Parts of the load unit that expand the memory formats: packed fields, and lists of outliers.

Everything here is combinational, and idle (zero) unless enabled. Words have `group` lanes (n).
"""

from __future__ import annotations

from amaranth import Cat, Const, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.spec.config import HardwareConfig

FIELD_BITS = 16  # widest field that a word packs
SIZE_BITS = 5  # bits of a field's width
WIDE_BITS = 32  # widest outlier


def ranks(flags: Value) -> list[Value]:
    """Number of flags below each position, then the number of all: a parallel prefix sum."""
    counts: list[Value] = [flags[i] for i in range(len(flags))]
    distance = 1
    while distance < len(flags):
        counts = [
            counts[i] + counts[i - distance] if i >= distance else counts[i]
            for i in range(len(flags))
        ]
        distance *= 2
    return [Const(0, 1), *counts]


class FieldUnpacker(wiring.Component):
    """Fields of `bits` (1..16) bits, lane 0 lowest in `packed`, to n*16 bits of `values`, extended
    by their sign when `signed`; 0 for bits = 0 or without `en`."""

    def __init__(self, config: HardwareConfig) -> None:
        self.lanes = n = config.group
        super().__init__(
            {
                "en": In(1), "packed": In(n * FIELD_BITS), "bits": In(SIZE_BITS),
                "signed": In(1), "values": Out(n * FIELD_BITS),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """One choice between the widths, of all lanes together."""
        m = Module()
        with m.If(self.en), m.Switch(self.bits):
            for bits in range(1, FIELD_BITS + 1):
                with m.Case(bits):
                    lanes = [
                        self.packed[lane * bits : (lane + 1) * bits] for lane in range(self.lanes)
                    ]
                    m.d.comb += self.values.eq(
                        Cat(
                            Cat(lane, (lane[-1] & self.signed).replicate(FIELD_BITS - bits))
                            for lane in lanes
                        )
                    )
        return m


class OutlierExpander(wiring.Component):
    """Outliers of a word to their lanes: the first of `outliers` to the lowest lane in `bitmap`.

    `outliers` holds integers of 2 bytes, or 4 when `wide`; `values` has n*32 bits, 0 in other
    lanes; `count` is the number of outliers.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.lanes = n = config.group
        super().__init__(
            {
                "en": In(1), "bitmap": In(n), "outliers": In(n * WIDE_BITS), "wide": In(1),
                "count": Out(range(n + 1)), "values": Out(n * WIDE_BITS),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Each lane picks the outlier of its rank."""
        m = Module()
        places = ranks(self.bitmap)
        m.d.comb += self.count.eq(places[-1])
        half = WIDE_BITS // 2
        with m.If(self.en):
            for lane in range(self.lanes):
                place = Signal(range(self.lanes), name=f"place_{lane}")
                goal = self.values[lane * WIDE_BITS : (lane + 1) * WIDE_BITS]
                m.d.comb += place.eq(places[lane])
                narrow = self.outliers[: self.lanes * half].word_select(place, half)
                with m.If(self.bitmap[lane] & self.wide):
                    m.d.comb += goal.eq(self.outliers.word_select(place, WIDE_BITS))
                with m.Elif(self.bitmap[lane]):
                    m.d.comb += goal.eq(Cat(narrow, narrow[-1].replicate(half)))
        return m
