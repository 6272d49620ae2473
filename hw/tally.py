"""Counters by index: a memory to whose entries events add."""

from __future__ import annotations

from collections.abc import Sequence

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from signmask.hw.ports import address_bits
from signmask.hw.register_map import ENTRY_BITS

INDEX_BITS = 12


class Tally(wiring.Component):
    """A counter of ENTRY_BITS for each index below `entries` (a power of two) and each column.

    In a cycle with `valid`, `counts` (as wide as `widths` say, column 0 lowest) is added at
    `index`; an event counts two cycles later. `clear` makes all counters 0. `read_en` and
    `read_index` give `values` (column 0 lowest) and `counted`, that there was an event, one cycle
    later.
    """

    def __init__(self, entries: int, widths: Sequence[int]) -> None:
        self.entries, self.widths = entries, tuple(widths)
        super().__init__(
            {
                "clear": In(1),
                "valid": In(1),
                "index": In(INDEX_BITS),
                "counts": In(sum(self.widths)),
                "read_en": In(1),
                "read_index": In(address_bits(entries)),
                "values": Out(ENTRY_BITS * len(self.widths)),
                "counted": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Read, add and write in two cycles; entries without an event hold what they held before
        `clear`, so they count as 0."""
        m = Module()
        width = ENTRY_BITS * len(self.widths)
        m.submodules.memory = memory = Memory(shape=width, depth=self.entries, init=[])
        write = memory.write_port()
        old = memory.read_port(transparent_for=(write,))
        shown = memory.read_port()
        counted = Signal(self.entries)
        adds, place = Signal(), Signal(address_bits(self.entries))
        counts = Signal(sum(self.widths))
        m.d.comb += [
            old.en.eq(self.valid),
            old.addr.eq(self.index),
            write.en.eq(adds),
            write.addr.eq(place),
            shown.en.eq(self.read_en),
            shown.addr.eq(self.read_index),
        ]
        m.d.sync += adds.eq(self.valid & (self.index < self.entries) & ~self.clear)
        with m.If(self.valid):
            m.d.sync += [place.eq(self.index), counts.eq(self.counts)]
        base = Mux(counted.bit_select(place, 1), old.data, 0)
        sums, at = [], 0
        for column, bits in enumerate(self.widths):
            total = Signal(ENTRY_BITS, name=f"total_{column}")
            m.d.comb += total.eq(base[column * ENTRY_BITS :][:ENTRY_BITS] + counts[at:][:bits])
            sums.append(total)
            at += bits
        m.d.comb += write.data.eq(Cat(*sums))
        with m.If(self.clear):
            m.d.sync += counted.eq(0)
        with m.Elif(adds):
            m.d.sync += counted.eq(counted | (Const(1, self.entries) << place))
        with m.If(self.read_en):
            m.d.sync += self.counted.eq(counted.bit_select(self.read_index, 1))
        m.d.comb += self.values.eq(Mux(self.counted, shown.data, 0))
        return m
