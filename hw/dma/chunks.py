"""Reads words of the scratchpads and makes the chunks that the store unit writes."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import enum, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from signmask.hw.compressor import Compressor
from signmask.hw.gearbox import chunk_layout
from signmask.hw.ports import ReadPort
from signmask.hw.rounding import lanes_of
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.timing import LOAD_BYTES

BASE_BITS = 24
WORD_BITS = 24


class Content(enum.Enum, shape=2):  # type: ignore[call-arg]
    """What an area holds."""

    RAW = 0
    PARAMETERS = 1
    DELTAS = 2


class ChunkReader(wiring.Component):
    """A chunk per cycle of the words from `base` on: `words` of `entry` (2**entry) bytes, or of
    deltas with inliers of `bits` bits, outliers of 4 bytes when `wide`, else 2. Parameters of 8
    bytes take two chunks a word.

    `start` pulses when the description stands; it holds until the area is read. Deltas are read
    twice: with listing = 0 the bitmaps and inliers, whose end leaves the number of `outliers`, then
    with listing = 1 the list, reading only words that have outliers (all of the rest, when more had
    some than config.bitmap_words). The first chunk is offered 4 cycles after `start`.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.config = config
        n = config.group
        self.chunk_bytes = LOAD_BYTES * n
        super().__init__(
            {
                "start": In(1), "listing": In(1),
                "content": In(Content), "base": In(BASE_BITS), "words": In(WORD_BITS),
                "entry": In(2), "bits": In(5), "wide": In(1),
                "outliers": Out(WORD_BITS),
                "accumulator": Out(ReadPort(config.accumulator_words, n * 32)),
                "parameter": Out(ReadPort(config.parameter_words, n * 48)),
                "chunks": Out(stream.Signature(chunk_layout(self.chunk_bytes))),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Address; data; compressor or first register; chunk."""
        m = Module()
        m.submodules.compressor = compressor = Compressor(self.config)
        m.submodules.marks = marks = SyncFIFOBuffered(
            width=WORD_BITS, depth=self.config.bitmap_words
        )
        deltas = self.content == Content.DELTAS
        parameters = self.content == Content.PARAMETERS
        index, part = Signal(WORD_BITS), Signal()
        reading, missed = Signal(), Signal()  # missed: more words had outliers than are marked
        valid = [Signal(name=f"valid_{stage}") for stage in "bcd"]
        last = [Signal(name=f"last_{stage}") for stage in "bcd"]
        parts = [Signal(name=f"part_{stage}") for stage in "b"]
        plain, chunk = Signal(8 * self.chunk_bytes), Signal(8 * self.chunk_bytes)
        advance, issue, final = Signal(), Signal(), Signal()
        at, whole = Signal(WORD_BITS), Signal()
        listed = deltas & self.listing
        marked = listed & marks.r_rdy
        m.d.comb += [
            advance.eq(~valid[2] | self.chunks.ready),
            issue.eq(reading & advance),
            at.eq(Mux(marked, marks.r_data, index)),
            whole.eq(part | ~parameters | (self.entry != 3)),  # no second half follows
            final.eq(
                Mux(
                    listed & ~missed,
                    marks.level == 1,
                    (at == self.words - 1) & whole & ~marked,
                )
            ),
            marks.r_en.eq(issue & listed),
            self.accumulator.en.eq(issue & ~parameters),
            self.accumulator.addr.eq(self.base + at),
            self.parameter.en.eq(issue & parameters),
            self.parameter.addr.eq(self.base + at),
            compressor.en.eq(advance & deltas & (valid[0] | valid[1])),
            compressor.values.eq(self.accumulator.data),
            compressor.bits.eq(self.bits), compressor.wide.eq(self.wide),
        ]  # fmt: skip
        with m.If(issue):
            m.d.sync += part.eq(~whole)
            with m.If(whole):
                m.d.sync += index.eq(at + 1)
            with m.If(final):
                m.d.sync += reading.eq(0)
        with m.If(advance):
            m.d.sync += [
                Cat(valid).eq(Cat(issue, valid[:2])), Cat(last).eq(Cat(final, last[:2])),
                parts[0].eq(part),
            ]  # fmt: skip
            with m.If(valid[0] & ~deltas):
                m.d.sync += plain.eq(self._plain(m, parts[0]))
            with m.If(valid[1] & ~deltas):
                m.d.sync += chunk.eq(plain)
        with m.If(self.start):
            m.d.sync += [reading.eq(1), index.eq(0), part.eq(0), Cat(valid).eq(0)]
        self._offer(m, valid[2], last[2], chunk, listed, compressor)
        self._mark(m, compressor, marks, missed, deltas)
        return m

    def _plain(self, m: Module, part: Signal) -> Value:
        """The chunk of a word of integers."""
        n = self.config.group
        made = Signal(8 * self.chunk_bytes, name="made")
        with m.If(self.content == Content.RAW), m.Switch(self.entry):
            for entry in range(3):
                with m.Case(entry):
                    lanes = lanes_of(self.accumulator.data, n)
                    m.d.comb += made.eq(Cat(lane[: 8 << entry] for lane in lanes))
        with m.Else(), m.Switch(self.entry):
            lanes = lanes_of(self.parameter.data, n)
            for entry in (1, 2):
                with m.Case(entry):
                    m.d.comb += made.eq(Cat(lane[: 8 << entry] for lane in lanes))
            with m.Default():
                halves = [
                    Cat(Cat(lane, lane[-1].replicate(64 - len(lane))) for lane in half)
                    for half in (lanes[: n // 2], lanes[n // 2 :])
                ]
                m.d.comb += made.eq(Mux(part, halves[1], halves[0]))
        return made

    def _offer(
        self, m: Module, valid: Signal, last: Signal, chunk: Signal, listed: Value,
        compressor: Compressor,
    ) -> None:  # fmt: skip
        """The last stage as a stream."""
        n, payload = self.config.group, self.chunks.payload
        m.d.comb += [self.chunks.valid.eq(valid), payload.last.eq(last)]
        with m.If(listed):
            m.d.comb += [
                payload.data.eq(compressor.outliers), payload.size.eq(compressor.list_bytes)
            ]  # fmt: skip
        with m.Elif(self.content == Content.DELTAS):
            m.d.comb += [
                payload.data.eq(compressor.area), payload.size.eq((self.bits + 1) * (n // 8))
            ]  # fmt: skip
        with m.Else():
            m.d.comb += payload.data.eq(chunk)
            with m.Switch(self.entry):
                for entry in range(3):
                    with m.Case(entry):
                        m.d.comb += payload.size.eq(n << entry)
                with m.Default():
                    m.d.comb += payload.size.eq(self.chunk_bytes)

    def _mark(
        self, m: Module, compressor: Compressor, marks: SyncFIFOBuffered, missed: Signal,
        deltas: Value,
    ) -> None:  # fmt: skip
        """Remember which words had outliers, and count these, as their bitmaps are taken."""
        place = Signal(WORD_BITS)
        taken = self.chunks.valid & self.chunks.ready & deltas & ~self.listing
        some = taken & (compressor.count != 0)
        m.d.comb += [marks.w_data.eq(place), marks.w_en.eq(some & ~missed)]
        with m.If(taken):
            m.d.sync += [place.eq(place + 1), self.outliers.eq(self.outliers + compressor.count)]
            with m.If(some & ~marks.w_rdy):
                m.d.sync += missed.eq(1)
        with m.If(self.start & ~self.listing):
            m.d.sync += [place.eq(0), self.outliers.eq(0), missed.eq(0)]
