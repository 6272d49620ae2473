"""Compressor of the memory formats: packed fields, and deltas with a list of outliers."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.decompressor import FIELD_BITS, SIZE_BITS, WIDE_BITS, ranks
from signmask.hw.spec.config import HardwareConfig


def pack_fields(m: Module, lanes: list[Value], bits: Value, packed: Signal) -> None:
    """Drive `packed` (combinational) with the low `bits` (1..16) bits of each lane, lane 0 lowest;
    0 for bits = 0."""
    with m.Switch(bits):
        for width in range(1, FIELD_BITS + 1):
            with m.Case(width):
                m.d.comb += packed.eq(Cat(lane[:width] for lane in lanes))


class Compressor(wiring.Component):
    """One word of n*32 bits of signed `values` per cycle of `en` to compressed deltas.

    LATENCY cycles of `en` later: `area`, bitmap and inliers of `bits` (1..16) bits as they lie in
    memory, (n + n*bits) / 8 bytes, lowest first; `outliers`, the word's outliers in order of lanes,
    as integers of 4 bytes when `wide`, else 2 (what does not fit is cut), 0 behind the last;
    `count` of them and their `list_bytes`. `bits` and `wide` hold still while words are inside.
    """

    LATENCY = 2

    def __init__(self, config: HardwareConfig) -> None:
        self.lanes = n = config.group
        super().__init__(
            {
                "en": In(1), "values": In(n * WIDE_BITS), "bits": In(SIZE_BITS), "wide": In(1),
                "area": Out(n * (1 + FIELD_BITS)), "outliers": Out(n * WIDE_BITS),
                "count": Out(range(n + 1)), "list_bytes": Out(range(n * WIDE_BITS // 8 + 1)),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Stages: classify and rank; pack the inliers and compact the outliers."""
        m = Module()
        n = self.lanes
        values = [Signal(WIDE_BITS, name=f"value_{lane}") for lane in range(n)]
        outlier = Signal(n)
        count = Signal.like(self.count)
        gaps = [Signal(range(n), name=f"gaps_{lane}") for lane in range(n)]
        flags = Signal(n)
        packed = Signal(n * FIELD_BITS)
        compact = [Signal(WIDE_BITS, name=f"compact_{place}") for place in range(n)]
        with m.If(self.en):
            high = Signal(WIDE_BITS)  # bits that repeat the sign of an inlier
            m.d.comb += high.eq(~((1 << self.bits) - 1 >> 1))
            places = ranks(flags)
            for lane in range(n):
                value = self.values[lane * WIDE_BITS : (lane + 1) * WIDE_BITS]
                m.d.comb += flags[lane].eq(((value ^ value[-1].replicate(WIDE_BITS)) & high).any())
                m.d.sync += [values[lane].eq(value), gaps[lane].eq(lane - places[lane])]
            m.d.sync += [outlier.eq(flags), count.eq(places[-1])]
            inliers = [Mux(outlier[lane], 0, values[lane][:FIELD_BITS]) for lane in range(n)]
            pack_fields(m, inliers, self.bits, packed)
            with m.If(outlier.any()):
                self._compact(m, values, outlier, gaps, compact)
            m.d.sync += [
                self.area.eq(Cat(outlier, packed)),
                self.count.eq(count),
                self.list_bytes.eq(Mux(self.wide, count << 2, count << 1)),
                self.outliers.eq(
                    Mux(self.wide, Cat(compact), Cat(c[: WIDE_BITS // 2] for c in compact))
                ),
            ]
        return m

    def _compact(
        self, m: Module, values: list[Signal], outlier: Signal, gaps: list[Signal],
        compact: list[Signal],
    ) -> None:  # fmt: skip
        """Move each outlier down by the number of gaps before it, one bit of that per level."""
        n = self.lanes
        items = [
            Cat(Mux(outlier[lane], values[lane], 0), gaps[lane], outlier[lane]) for lane in range(n)
        ]
        for bit in range(len(gaps[0])):
            level, moved = [], WIDE_BITS + bit
            for place in range(n):
                item = Signal(len(items[0]), name=f"level_{bit}_{place}")
                source = place + (1 << bit)
                if source < n:
                    with m.If(items[source][-1] & items[source][moved]):
                        m.d.comb += item.eq(items[source])
                    with m.Elif(~items[place][moved]):
                        m.d.comb += item.eq(items[place])
                else:
                    with m.If(~items[place][moved]):
                        m.d.comb += item.eq(items[place])
                level.append(item)
            items = level
        m.d.comb += [compact[place].eq(items[place][:WIDE_BITS]) for place in range(n)]
