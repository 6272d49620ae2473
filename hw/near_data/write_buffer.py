"""Words of a write stream, gathered to beats at any byte."""

from __future__ import annotations

from amaranth import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.near_data.shape import ceil_power
from signmask.hw.scratchpad import Scratchpad
from signmask.hw.spec.engine_timing import WRITE_SLOTS


class WriteBuffer(wiring.Component):
    """A ring of `beats` beats of `beat_bytes`, filled in order in chunks of up to `chunk_bytes`.

    `push` appends the low `size` bytes of `data`; with `restart` at byte `skip` of a new beat. The
    push with `last` ends frame `slot`: with `flush`, its last beat is given out even if it is part
    filled, and the next push restarts. Of frame `query`: `frame_beats` beats are to be taken,
    `frame_low` bytes of the last count (0: all) with `frame_flush`. `take` reads the next beat,
    which is `beat` from the next cycle until the next take. `moved` sums the bytes pushed. Offsets
    and sizes are multiples of `granule` bytes. `clear` empties the buffer.
    """

    def __init__(
        self, name: str, beat_bytes: int, chunk_bytes: int, beats: int, granule: int
    ) -> None:
        self.name, self.beat_bytes, self.chunk_bytes = name, beat_bytes, chunk_bytes
        self.granule = min(granule, beat_bytes)
        self.row = max(beat_bytes, ceil_power(chunk_bytes))
        self.rows = max(4, ceil_power(-(-beats * beat_bytes // self.row)))
        self.ring_beats = self.rows * self.row // beat_bytes
        low = beat_bytes.bit_length() - 1
        super().__init__(
            {
                "clear": In(1), "push": In(1), "data": In(8 * chunk_bytes),
                "size": In(range(chunk_bytes + 1)), "restart": In(1), "skip": In(low),
                "last": In(1), "flush": In(1), "slot": In(range(WRITE_SLOTS)),
                "query": In(range(WRITE_SLOTS)), "frame_beats": Out(range(self.ring_beats)),
                "frame_low": Out(low), "frame_flush": Out(1),
                "take": In(1), "beat": Out(8 * beat_bytes), "moved": Out(32),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """A shift, then two banks of alternate rows written by granule."""
        m = Module()
        low, row_bits = self.beat_bytes.bit_length() - 1, self.row.bit_length() - 1
        row_index = self.rows.bit_length() - 1
        bits = row_bits + row_index
        place = Signal(bits)
        touched = Signal()
        sent = Signal(bits - low)
        at, end, stop, filled = Signal(bits), Signal(bits), Signal(bits - low), Signal()
        m.d.comb += [
            at.eq(Mux(self.restart, Cat(self.skip, place[low:]), place)),
            end.eq(at + self.size),
            filled.eq(self.size.any() | touched & ~self.restart),
            stop.eq(end[low:] + (self.flush & filled & end[:low].any())),
        ]
        entries = [
            Array(Signal(len(member), name=f"frame_{name}_{i}") for i in range(WRITE_SLOTS))
            for name, member in (
                ("beats", self.frame_beats), ("low", self.frame_low), ("flush", self.frame_flush)
            )
        ]  # fmt: skip
        beats, lows, flushes = entries
        m.d.comb += [
            self.frame_beats.eq(beats[self.query]), self.frame_low.eq(lows[self.query]),
            self.frame_flush.eq(flushes[self.query]),
        ]  # fmt: skip
        with m.If(self.push):
            m.d.sync += [place.eq(end), touched.eq(filled), self.moved.eq(self.moved + self.size)]
            with m.If(self.last):
                m.d.sync += [
                    beats[self.slot].eq(stop - sent), lows[self.slot].eq(end[:low]),
                    flushes[self.slot].eq(self.flush), sent.eq(stop),
                ]  # fmt: skip
                with m.If(self.flush):
                    m.d.sync += [place.eq(Cat(Const(0, low), stop)), touched.eq(0)]
        self._banks(m, at)
        with m.If(self.clear):
            m.d.sync += [place.eq(0), touched.eq(0), sent.eq(0), self.moved.eq(0)]
        return m

    def _banks(self, m: Module, at: Signal) -> None:
        low, row_bits = self.beat_bytes.bit_length() - 1, self.row.bit_length() - 1
        unit = self.granule.bit_length() - 1
        lanes = self.row // self.granule
        per_row = self.row // self.beat_bytes
        row = at[row_bits:]
        shift = at[unit:row_bits]
        data, mask = Signal(16 * self.row), Signal(2 * lanes)
        filled = Signal(self.chunk_bytes // self.granule)
        m.d.comb += [
            filled.eq(Cat(self.size[unit:] > i for i in range(len(filled)))),
            data.eq(self.data << Cat(Const(0, 3 + unit), shift)),
            mask.eq(filled << shift),
        ]
        taken = Signal(len(at) - low)
        place = Signal(1 + row_bits - low)  # bank and slice of the beat that is given out
        taken_row = taken[row_bits - low :]
        slices = []
        for i in range(2):
            bank = Scratchpad(f"{self.name}_{i}", self.rows // 2, 8 * self.row, lanes)
            port, source = bank.write_port(), bank.read_port()
            m.submodules[f"bank_{i}"] = bank
            second = row[0] != i
            m.d.comb += [
                port.en.eq(self.push), port.addr.eq((row + (1 - i))[: len(row)][1:]),
                port.data.eq(Mux(second, data[8 * self.row :], data[: 8 * self.row])),
                port.lanes.eq(Mux(second, mask[lanes:], mask[:lanes])),
                source.en.eq(self.take & (taken_row[0] == i)), source.addr.eq(taken_row[1:]),
            ]  # fmt: skip
            width = 8 * self.beat_bytes
            slices += [source.data[j * width : (j + 1) * width] for j in range(per_row)]
        m.d.comb += self.beat.eq(Array(slices)[place])
        with m.If(self.take):
            m.d.sync += [taken.eq(taken + 1), place.eq(taken)]
        with m.If(self.clear):
            m.d.sync += taken.eq(0)
