"""Width converters between bus beats and the words of a memory area, at byte granularity.

`ByteQueue` turns beats into chunks of a size chosen cycle by cycle, `Packer` does the inverse.
"""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out


def later_bytes(m: Module, value: Signal, places: Signal, width: int) -> Signal:
    """`value` shifted up by `places` bytes, cut to `width` bits; call it where `m` may assign."""
    for bit in range(len(places)):
        moved = Signal(width)
        m.d.comb += moved.eq(value)
        if 8 << bit < width:
            with m.If(places[bit]):
                m.d.comb += moved.eq(value << (8 << bit))
        value = moved
    return value


class ByteQueue(wiring.Component):
    """Queue that is filled by parts of beats and read in chunks.

    A cycle with `valid` and `ready` appends `count` bytes of `data`, from byte `skip` on.
    `available` says that the queue holds `size` bytes; they are the lowest of `chunk` (bytes past
    the fill are 0), and `take` removes them (only while `available`). `clear` empties the queue and
    refuses the beat of its cycle. An appended byte is seen one cycle later. One beat and one chunk
    move per cycle: `ready` is low only while more than chunk_bytes + beat_bytes are held.
    """

    def __init__(self, beat_bytes: int, chunk_bytes: int) -> None:
        self.beat_bytes, self.chunk_bytes = beat_bytes, chunk_bytes
        self.capacity = chunk_bytes + 2 * beat_bytes
        super().__init__(
            {
                "valid": In(1), "ready": Out(1), "data": In(8 * beat_bytes),
                "skip": In(range(beat_bytes)), "count": In(range(beat_bytes + 1)),
                "size": In(range(chunk_bytes + 1)), "available": Out(1),
                "chunk": Out(8 * chunk_bytes), "take": In(1), "clear": In(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Shift out what is taken, append the kept bytes of the beat."""
        m = Module()
        held = Signal(8 * self.capacity)
        fill = Signal(range(self.capacity + 1))
        left = Signal.like(fill)
        rest = Signal.like(held)
        beat = Signal(8 * self.beat_bytes)
        m.d.comb += [
            self.ready.eq((fill <= self.capacity - self.beat_bytes) & ~self.clear),
            self.available.eq(fill >= self.size),
            self.chunk.eq(held[: 8 * self.chunk_bytes]),
        ]
        push = self.valid & self.ready
        with m.If(self.clear):
            m.d.sync += [held.eq(0), fill.eq(0)]
        with m.Elif(push | self.take):
            m.d.comb += [left.eq(fill), rest.eq(held)]
            with m.If(self.take):
                m.d.comb += [left.eq(fill - self.size), rest.eq(held >> (self.size << 3))]
            m.d.sync += [held.eq(rest), fill.eq(left)]
            with m.If(push):
                moved = Signal.like(beat)
                m.d.comb += [moved.eq(self.data >> (self.skip << 3)), beat.eq(moved)]
                with m.If(self.count != self.beat_bytes):
                    for byte in range(self.beat_bytes):
                        with m.If(self.count <= byte):
                            m.d.comb += beat[8 * byte : 8 * byte + 8].eq(0)
                placed = later_bytes(m, beat, left, 8 * self.capacity)
                m.d.sync += [held.eq(rest | placed), fill.eq(left + self.count)]
        return m


def chunk_layout(chunk_bytes: int) -> data.StructLayout:
    """A packer's input: `size` bytes of `data`, first byte lowest; `last` ends the area."""
    return data.StructLayout({"data": 8 * chunk_bytes, "size": range(chunk_bytes + 1), "last": 1})


def beat_layout(beat_bytes: int) -> data.StructLayout:
    """A packer's output: `strb` has one bit per byte, `last` marks the end of the area."""
    return data.StructLayout({"data": 8 * beat_bytes, "strb": beat_bytes, "last": 1})


class Packer(wiring.Component):
    """Chunks in, beats out, one area after another.

    `restart` starts an area at byte `skip` of its first beat (nothing may be buffered any more); no
    chunk is accepted in that cycle. After the chunk with `last` no chunk is accepted until the area
    is drained. An area ends with a beat marked `last`, partly strobed where it is not full; a
    `last` chunk of size 0 flushes what is buffered and makes no beat where nothing is. A chunk
    accepted in a cycle can be part of a beat from the next on; bytes that are not strobed are 0.
    """

    def __init__(self, chunk_bytes: int, beat_bytes: int) -> None:
        self.chunk_bytes, self.beat_bytes = chunk_bytes, beat_bytes
        self.capacity = chunk_bytes + 2 * beat_bytes
        super().__init__(
            {
                "chunks": In(stream.Signature(chunk_layout(chunk_bytes))),
                "beats": Out(stream.Signature(beat_layout(beat_bytes))),
                "restart": In(1), "skip": In(range(beat_bytes)), "drained": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Append chunks, shift out beats; `drained` says that nothing is buffered."""
        m = Module()
        chunk, beats, size = self.chunks.payload, self.beats, self.beat_bytes
        held = Signal(8 * self.capacity)
        fill = Signal(range(self.capacity + 1))
        low = Signal.like(self.skip)  # bytes of the next beat that lie before the area
        ending = Signal()
        left = Signal.like(fill)
        rest = Signal.like(held)
        m.d.comb += [
            self.chunks.ready.eq(
                (fill <= self.capacity - self.chunk_bytes) & ~ending & ~self.restart
            ),
            beats.valid.eq((fill >= size) | ending & (fill != 0)),
            beats.payload.data.eq(held[: 8 * size]),
            beats.payload.last.eq(ending & (fill <= size)),
            self.drained.eq((fill == 0) & ~ending),
        ]
        for byte in range(size):
            inside = low <= byte if byte < size - 1 else 1
            m.d.comb += beats.payload.strb[byte].eq((fill > byte) & inside)
        push = self.chunks.valid & self.chunks.ready
        pop = beats.valid & beats.ready
        with m.If(self.restart):
            m.d.sync += [held.eq(0), fill.eq(self.skip), low.eq(self.skip), ending.eq(0)]
        with m.Elif(push | pop | ending):
            m.d.comb += [left.eq(fill), rest.eq(held)]
            with m.If(pop):
                m.d.comb += [left.eq(Mux(fill > size, fill - size, 0)), rest.eq(held[8 * size :])]
                m.d.sync += low.eq(0)
            m.d.sync += [held.eq(rest), fill.eq(left)]
            with m.If(push):
                kept = Signal(8 * self.chunk_bytes)
                m.d.comb += kept.eq(chunk.data)
                with m.If(chunk.size != self.chunk_bytes):
                    for byte in range(self.chunk_bytes):
                        with m.If(chunk.size <= byte):
                            m.d.comb += kept[8 * byte : 8 * byte + 8].eq(0)
                placed = later_bytes(m, kept, left, 8 * self.capacity)
                m.d.sync += [held.eq(rest | placed), fill.eq(left + chunk.size)]
            with m.If(ending & (left == 0)):
                m.d.sync += ending.eq(0)
            with m.If(push & chunk.last):
                m.d.sync += ending.eq(1)
        return m
