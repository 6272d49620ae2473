"""A queue of words in order, for instructions that wait and for those in flight."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out


class WordQueue(wiring.Component):
    """`depth` words of `width` bits. A word is at the head in the cycle after it entered, and its
    place is free in the cycle after it left. `clear` empties the queue."""

    def __init__(self, width: int, depth: int) -> None:
        self.width, self.depth = width, depth
        super().__init__(
            {
                "clear": In(1),
                "enter": In(stream.Signature(width)),
                "head": Out(stream.Signature(width)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """A memory, or one register, and the number of words in it."""
        m = Module()
        level = Signal(range(self.depth + 1))
        entered = self.enter.valid & self.enter.ready
        left = self.head.valid & self.head.ready
        m.d.comb += [self.enter.ready.eq(level != self.depth), self.head.valid.eq(level != 0)]
        if self.depth == 1:
            word = Signal(self.width)
            m.d.comb += self.head.payload.eq(word)
            with m.If(entered):
                m.d.sync += word.eq(self.enter.payload)
        else:
            self._places(m, entered, left)
        with m.If(self.clear):
            m.d.sync += level.eq(0)
        with m.Elif(entered & ~left):
            m.d.sync += level.eq(level + 1)
        with m.Elif(left & ~entered):
            m.d.sync += level.eq(level - 1)
        return m

    def _places(self, m: Module, entered: Value, left: Value) -> None:
        m.submodules.memory = memory = Memory(shape=self.width, depth=self.depth, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        m.d.comb += [
            write.en.eq(entered),
            write.data.eq(self.enter.payload),
            self.head.payload.eq(read.data),
        ]
        for address, moves in ((write.addr, entered), (read.addr, left)):
            place = Signal(range(self.depth), name="tail" if address is write.addr else "front")
            m.d.comb += address.eq(place)
            with m.If(self.clear):
                m.d.sync += place.eq(0)
            with m.Elif(moves):
                m.d.sync += place.eq(Mux(place == self.depth - 1, 0, place + 1))
