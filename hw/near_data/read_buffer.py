"""Beats of a read stream, read back as words at any byte."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.near_data.shape import ceil_power
from signmask.hw.scratchpad import Scratchpad


class ReadBuffer(wiring.Component):
    """A ring of `beats` beats of `beat_bytes`, filled in order (write) and read in order in chunks
    of up to `chunk_bytes` bytes.

    `read` takes the next `size` bytes; LATENCY cycles later they are the low bytes of `chunk`,
    which stays until the next chunk. `restart` (with `read`): the stream goes on at byte `skip` of
    the first beat of which nothing was taken. The taker reads only what has been written; `ready`
    says that the bytes of the read presented are there. `full`: fewer than two beats of room.
    Offsets, sizes and skips are multiples of `granule` bytes (a power of two). `clear` empties it.
    """

    LATENCY = 2

    def __init__(
        self, name: str, beat_bytes: int, chunk_bytes: int, beats: int, granule: int
    ) -> None:
        self.name, self.beat, self.chunk_bytes = name, beat_bytes, chunk_bytes
        self.granule = min(granule, beat_bytes)
        self.row = max(beat_bytes, ceil_power(chunk_bytes))
        self.rows = max(4, ceil_power(-(-beats * beat_bytes // self.row)))
        super().__init__(
            {
                "clear": In(1), "write": In(1), "data": In(8 * beat_bytes),
                "read": In(1), "size": In(range(chunk_bytes + 1)), "restart": In(1),
                "skip": In(beat_bytes.bit_length() - 1),
                "ready": Out(1), "full": Out(1), "chunk": Out(8 * chunk_bytes),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Two banks of alternate rows, so that a chunk may lie across two; then a shift."""
        m = Module()
        low, row_bits = self.beat.bit_length() - 1, self.row.bit_length() - 1
        row_index = self.rows.bit_length() - 1
        per_row = self.row // self.beat
        place = Signal(row_bits + row_index + 1)  # of the next byte; one bit tells full from empty
        touched = Signal()
        filled = Signal(row_bits + row_index + 1 - low)
        at, end = Signal.like(place), Signal.like(place)
        beat = place[low:]
        fresh = (beat + (touched & place[:low].any()))[: len(beat)]
        m.d.comb += [
            at.eq(Mux(self.restart, Cat(self.skip, fresh), place)),
            end.eq(at + self.size),
        ]
        ahead = Signal.like(filled)
        m.d.comb += [
            ahead.eq(filled - end[low:] - end[:low].any()),
            self.ready.eq(~ahead[-1]),
        ]
        held = Signal.like(filled)
        m.d.comb += [held.eq(filled - beat), self.full.eq(held >= self.rows * per_row - 2)]
        banks = [
            Scratchpad(f"{self.name}_{i}", self.rows // 2, 8 * self.row, per_row) for i in range(2)
        ]
        row = at[row_bits : row_bits + row_index]
        filled_row = filled[row_bits - low : row_bits - low + row_index]
        outputs = []
        for i, bank in enumerate(banks):
            port, source = bank.write_port(), bank.read_port()
            m.submodules[f"bank_{i}"] = bank
            m.d.comb += [
                port.en.eq(self.write & (filled_row[0] == i)), port.addr.eq(filled_row[1:]),
                port.data.eq(self.data.replicate(per_row)),
                source.en.eq(self.read),
                source.addr.eq((row + (1 - i))[: row_index][1:]),
            ]  # fmt: skip
            if per_row == 1:
                m.d.comb += port.lanes.eq(1)
            else:
                m.d.comb += port.lanes.eq(Const(1, per_row) << filled[: row_bits - low])
            outputs.append(source.data)
        unit = self.granule.bit_length() - 1
        shift = Signal(row_bits - unit)
        odd, late = Signal(), Signal()
        pair = Mux(odd, Cat(outputs[1], outputs[0]), Cat(outputs[0], outputs[1]))
        m.d.sync += late.eq(self.read)
        with m.If(self.read):
            m.d.sync += [
                place.eq(end), touched.eq(self.size.any() | touched & ~self.restart),
                shift.eq(at[unit:row_bits]), odd.eq(row[0]),
            ]  # fmt: skip
        with m.If(late):
            moved = pair >> Cat(Const(0, 3 + unit), shift)
            m.d.sync += self.chunk.eq(moved[: 8 * self.chunk_bytes])
        with m.If(self.write):
            m.d.sync += filled.eq(filled + 1)
        with m.If(self.clear):
            m.d.sync += [place.eq(0), touched.eq(0), filled.eq(0)]
        return m
