"""Descriptor and tables on their way from the read channel into registers and table memory."""

from __future__ import annotations

from amaranth import Cat, Const, Elaboratable, Module, Mux, Signal

from signmask.hw.near_data.descriptor import LINE_BYTES
from signmask.hw.near_data.read_buffer import ReadBuffer
from signmask.hw.near_data.shape import Shape
from signmask.hw.near_data.table_items import SIZE_BITS
from signmask.hw.ports import address_bits
from signmask.hw.word_queue import WordQueue

ENTRY_BITS = 48
MAX_ITEMS = 16
LINE, SEGMENT_TABLE, WIDE, NARROW = range(4)
SEGMENTS = 8


class TableLoader(Elaboratable):
    """Takes the words of each item (`enter`: kind, size in bytes, skip in its first beat, target
    word) out of its `buffer`: lines of a descriptor, the three words of the segment table
    (`breaks`, `slopes`, `intercepts`), or words of n entries, written to the table memory
    (`write`, `address`, `data`). `idle`: nothing is under way.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        n = shape.n
        self.unit = max(LINE_BYTES, 8 * n)
        room = 4 * self.unit // shape.beat + 6
        self.buffer = ReadBuffer("table", shape.beat, self.unit, room, 8)
        self.clear, self.enter = Signal(), Signal()
        self.kind, self.size = Signal(2), Signal(SIZE_BITS)
        self.skip = Signal(shape.beat_bits)
        self.target = Signal(address_bits(shape.config.engine_words))
        self.line_valid, self.line_last, self.line = Signal(), Signal(), Signal(8 * LINE_BYTES)
        self.breaks = Signal((SEGMENTS - 1) * ENTRY_BITS)
        self.slopes, self.intercepts = Signal(SEGMENTS * ENTRY_BITS), Signal(SEGMENTS * ENTRY_BITS)
        self.write, self.data = Signal(), Signal(n * ENTRY_BITS)
        self.address = Signal.like(self.target)
        self.idle = Signal()

    def elaborate(self, platform: object) -> Module:
        """One word per cycle; it comes out of the buffer two cycles later."""
        m = Module()
        n, buffer = self.shape.n, self.buffer
        m.submodules.buffer = buffer
        fields = Cat(self.kind, self.size, self.skip, self.target)
        m.submodules.queue = queue = WordQueue(len(fields), MAX_ITEMS)
        m.d.comb += [
            queue.clear.eq(self.clear), buffer.clear.eq(self.clear),
            queue.enter.valid.eq(self.enter), queue.enter.payload.eq(fields),
        ]  # fmt: skip
        head, widths = queue.head.payload, [len(self.kind), len(self.size), len(self.skip)]
        kind = head[: widths[0]]
        size = head[widths[0] : sum(widths[:2])]
        skip, target = head[sum(widths[:2]) : sum(widths)], head[sum(widths) :]
        first, rest, left = Signal(init=1), Signal(SIZE_BITS), Signal(SIZE_BITS)
        place, at = Signal.like(self.target), Signal.like(self.target)
        unit, final = Signal(range(self.unit + 1)), Signal()
        m.d.comb += [
            unit.eq(Mux(kind == LINE, LINE_BYTES, Mux(kind == NARROW, 4 * n, 8 * n))),
            left.eq(Mux(first, size, rest)), at.eq(Mux(first, target, place)),
            final.eq(left <= unit),
            buffer.size.eq(Mux(final, left, unit)), buffer.restart.eq(first), buffer.skip.eq(skip),
            buffer.read.eq(queue.head.valid & buffer.ready),
            queue.head.ready.eq(buffer.read & final),
        ]  # fmt: skip
        with m.If(buffer.read):
            m.d.sync += [first.eq(final), rest.eq(left - unit), place.eq(at + 1)]
        with m.If(self.clear):
            m.d.sync += first.eq(1)
        stages = [Cat(buffer.read, kind, final, at)]
        for i in range(ReadBuffer.LATENCY):
            later = Signal(len(stages[0]), name=f"stage_{i}")
            m.d.sync += later.eq(stages[-1])
            stages.append(later)
        valid, kind, final, at = (
            stages[-1][0], stages[-1][1:3], stages[-1][3], stages[-1][4:],
        )  # fmt: skip
        m.d.comb += self.idle.eq(~queue.head.valid & ~Cat(stage[0] for stage in stages[1:]).any())
        chunk = buffer.chunk
        table = Cat(chunk[64 * i : 64 * i + ENTRY_BITS] for i in range(SEGMENTS))
        narrow = Cat(
            Cat(chunk[32 * i : 32 * (i + 1)], chunk[32 * i + 31].replicate(ENTRY_BITS - 32))
            for i in range(n)
        )
        wide = Cat(chunk[64 * i : 64 * i + ENTRY_BITS] for i in range(n))
        m.d.comb += [
            self.line_valid.eq(valid & (kind == LINE)), self.line_last.eq(final),
            self.line.eq(chunk[: 8 * LINE_BYTES]),
            self.write.eq(valid & kind[1]), self.address.eq(at),
            self.data.eq(Mux(kind == NARROW, narrow, wide)),
        ]  # fmt: skip
        with m.If(valid & (kind == SEGMENT_TABLE)):
            m.d.sync += [
                self.intercepts.eq(table), self.slopes.eq(self.intercepts),
                self.breaks.eq(Cat(self.slopes, Const(0, 1))[: len(self.breaks)]),
            ]  # fmt: skip
        return m
