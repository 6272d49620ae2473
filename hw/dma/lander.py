"""Last half of the load unit: chunks of areas to words of the scratchpads."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from signmask.hw.decompressor import FieldUnpacker, OutlierExpander
from signmask.hw.dma.layouts import COUNT_BITS, Landing, LoadShape, counted_layout, landing_layout
from signmask.hw.ports import WritePort
from signmask.hw.rounding import lanes_of
from signmask.hw.spec.config import HardwareConfig


def population(flags: Value) -> Value:
    """Number of set bits, as a tree."""
    if len(flags) == 1:
        return flags
    half = len(flags) // 2
    return population(flags[:half]) + population(flags[half:])


class Lander(wiring.Component):
    """Takes one chunk per cycle and writes its word in the next; `done` pulses with an
    instruction's last write.

    Bitmaps of LOAD_DELTAS are kept, where they have outliers, with the number of their word; when
    the last one of an instruction is kept, its totals go to `counted`.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.config, self.shape = config, LoadShape(config)
        n = config.group
        # A bitmap with outliers: the number of its word, and how many there are.
        self.kept = data.StructLayout(
            {"index": range(config.bitmap_words), "bitmap": n, "count": range(n + 1)}
        )
        super().__init__(
            {
                "landings": In(stream.Signature(landing_layout(self.shape))),
                "size": Out(range(self.shape.chunk + 1)), "available": In(1),
                "chunk": In(8 * self.shape.chunk), "take": Out(1),
                "counted": Out(stream.Signature(counted_layout())), "done": Out(1),
                "input": Out(WritePort(config.input_words, n * 9, n)),
                "weight": Out(
                    WritePort(config.weight_words, config.columns * n * 8, config.columns * n)
                ),
                "accumulator": Out(WritePort(config.accumulator_words, n * 32, n)),
                "segments": Out(WritePort(config.mask_words, n * 3, n)),
                "corrections": Out(WritePort(config.mask_words, n * 16, n)),
                "parameter": Out(WritePort(config.parameter_words, n * 48, n)),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """The present area and its place in the scratchpads; writes; bitmaps."""
        m = Module()
        shape = self.shape
        area, busy = Signal(landing_layout(shape)), Signal()
        word, row_base = Signal(len(area.base)), Signal(len(area.base))
        index = Signal(range(shape.bitmaps))
        part = Signal(range(max(2, shape.parts, shape.blocks)))
        row = Signal(range(max(shape.columns, shape.lanes)))
        m.submodules.bitmaps = bitmaps = SyncFIFOBuffered(width=self.kept.size, depth=shape.bitmaps)
        oldest = data.View(self.kept, bitmaps.r_data)
        listed = area.landing == Landing.OUTLIERS
        m.d.comb += self.size.eq(
            Mux(
                listed,
                Mux(area.entry[1], oldest.count << 2, oldest.count << 1),
                Mux(area.takes == 1, area.last, area.size),
            )
        )
        ready = self.available & (~listed | bitmaps.r_rdy)
        end = Signal()
        m.d.comb += [
            self.take.eq(busy & (area.takes != 0) & ready),
            end.eq((self.take & (area.takes == 1)) | busy & (area.takes == 0)),
            self.landings.ready.eq(~busy | end),
            bitmaps.r_en.eq(self.take & listed),
        ]
        m.d.sync += self.done.eq(end & area.final)
        with m.If(self.take):
            m.d.sync += [area.takes.eq(area.takes - 1), index.eq(index + 1)]
            self._advance(m, area, word, row_base, part, row)
        with m.If(self.landings.ready):
            following = self.landings.payload
            m.d.sync += [
                busy.eq(self.landings.valid), area.eq(following), word.eq(following.base),
                row_base.eq(following.base), index.eq(0), part.eq(0),
                row.eq(following.row),
            ]  # fmt: skip
        self._write(m, area, word, part, row, oldest)
        self._keep(m, self.take & (area.landing == Landing.DELTAS), end, index, bitmaps)
        return m

    def _advance(
        self, m: Module, area: Value, word: Signal, row_base: Signal, part: Signal, row: Signal
    ) -> None:
        """Where the next chunk of the area goes."""
        shape = self.shape
        with m.Switch(area.landing):
            with m.Case(Landing.WEIGHTS):
                m.d.sync += part.eq(part + 1)
                with m.If(part == shape.parts - 1):
                    m.d.sync += [part.eq(0), word.eq(word + area.stride)]
            with m.Case(Landing.VALUES):
                m.d.sync += [part.eq(part + 1), word.eq(word + area.stride)]
                with m.If(part == shape.blocks - 1):
                    m.d.sync += [part.eq(0), word.eq(row_base), row.eq(row + 1)]
                    with m.If(row == shape.lanes - 1):
                        m.d.sync += [word.eq(row_base + 1), row_base.eq(row_base + 1), row.eq(0)]
            with m.Case(Landing.PARAMETER):
                m.d.sync += part.eq(~part[0])
                with m.If((area.entry != 3) | part[0]):
                    m.d.sync += [part.eq(0), word.eq(word + 1)]
            with m.Case(Landing.OUTLIERS):
                pass
            with m.Default():
                m.d.sync += word.eq(word + 1)

    def _write(
        self, m: Module, area: Value, word: Signal, part: Signal, row: Signal, oldest: Value
    ) -> None:
        """Registers of the write ports."""
        n = self.shape.lanes
        m.submodules.fields = fields = FieldUnpacker(self.config)
        m.submodules.expander = expander = OutlierExpander(self.config)
        ports = (
            self.input, self.weight, self.accumulator, self.segments, self.corrections,
            self.parameter,
        )  # fmt: skip
        m.d.sync += [port.en.eq(0) for port in ports]
        deltas = area.landing == Landing.DELTAS
        listed = area.landing == Landing.OUTLIERS
        masked = deltas | (area.landing == Landing.SEGMENTS) | (area.landing == Landing.RESIDUES)
        m.d.comb += [
            fields.en.eq(self.take & masked), fields.bits.eq(area.bits),
            fields.signed.eq(area.landing != Landing.SEGMENTS),
            fields.packed.eq(Mux(deltas, self.chunk[n:], self.chunk)),
            expander.en.eq(self.take & listed), expander.bitmap.eq(oldest.bitmap),
            expander.outliers.eq(self.chunk), expander.wide.eq(area.entry[1]),
        ]  # fmt: skip
        narrow = lanes_of(fields.values, n)
        wide = lanes_of(expander.values, n)
        everywhere = (1 << n) - 1
        at = Mux(listed, word + oldest.index, word)
        to_accumulator = (area.landing == Landing.RAW) | (deltas | listed) & ~area.to_mask
        to_corrections = (area.landing == Landing.RESIDUES) | (deltas | listed) & area.to_mask
        with m.If(self.take & to_accumulator):
            m.d.sync += [
                self.accumulator.en.eq(1), self.accumulator.addr.eq(at),
                self.accumulator.lanes.eq(Mux(listed, oldest.bitmap, everywhere)),
            ]  # fmt: skip
            with m.If(listed):
                m.d.sync += self.accumulator.data.eq(expander.values)
            with m.Elif(deltas):
                m.d.sync += self.accumulator.data.eq(_spread(narrow, 32))
            with m.Else(), m.Switch(area.entry):
                for entry in range(3):
                    with m.Case(entry):
                        m.d.sync += self.accumulator.data.eq(
                            _spread(lanes_of(self.chunk[: n * 8 << entry], n), 32)
                        )
        with m.If(self.take & to_corrections):
            m.d.sync += [
                self.corrections.en.eq(1), self.corrections.addr.eq(at),
                self.corrections.lanes.eq(Mux(listed, oldest.bitmap, everywhere)),
                self.corrections.data.eq(
                    Mux(listed, Cat(value[:16] for value in wide), fields.values)
                ),
            ]  # fmt: skip
        with m.If(self.take & (area.landing == Landing.SEGMENTS)):
            m.d.sync += [
                self.segments.en.eq(1), self.segments.addr.eq(word),
                self.segments.lanes.eq(everywhere),
                self.segments.data.eq(Cat(value[:3] for value in narrow)),
            ]  # fmt: skip
        with m.If(self.take & (area.landing == Landing.INPUT)):
            m.d.sync += [
                self.input.en.eq(1), self.input.addr.eq(word), self.input.lanes.eq(everywhere),
                self.input.data.eq(_spread(lanes_of(self.chunk[: n * 8], n), 9)),
            ]  # fmt: skip
        with m.If(self.take & (area.landing == Landing.PARAMETER)):
            self._write_parameter(m, area, word, part, everywhere)
        with m.If(self.take & (area.landing == Landing.WEIGHTS)):
            self._write_weights(m, area, word, part)
        with m.If(self.take & (area.landing == Landing.KEYS)):
            self._write_key(m, word, row)
        with m.If(self.take & (area.landing == Landing.VALUES)):
            self._write_values(m, area, word, part, row)

    def _write_parameter(
        self, m: Module, area: Value, word: Signal, part: Signal, everywhere: int
    ) -> None:
        """Entries of 2 or 4 bytes, or half a word of 8 bytes each."""
        n, port = self.shape.lanes, self.parameter
        m.d.sync += [port.en.eq(1), port.addr.eq(word), port.lanes.eq(everywhere)]
        with m.Switch(area.entry):
            for entry in (1, 2):
                with m.Case(entry):
                    m.d.sync += port.data.eq(_spread(lanes_of(self.chunk[: n * 8 << entry], n), 48))
            with m.Default():
                half = Cat(value[:48] for value in lanes_of(self.chunk[: n * 32], n // 2))
                low = (1 << n // 2) - 1
                m.d.sync += [
                    port.data.eq(Cat(half, half)),
                    port.lanes.eq(Mux(part[0], low << n // 2, low)),
                ]

    def _write_weights(self, m: Module, area: Value, word: Signal, part: Signal) -> None:
        """A part of a word as it lies in memory; the first part clears the others."""
        n, shape, port = self.shape.lanes, self.shape, self.weight
        size = Mux(area.takes == 1, area.last, area.size)
        columns = [
            Mux(size > at, self.chunk[8 * at : 8 * (at + n)], 0) for at in range(0, shape.weight, n)
        ]
        chunk = Signal(8 * shape.weight)
        first = part == 0
        m.d.comb += chunk.eq(Cat(columns))
        m.d.sync += [port.en.eq(1), port.addr.eq(word)]
        for place in range(shape.parts):
            bits = slice(8 * shape.weight * place, 8 * shape.weight * (place + 1))
            lanes = slice(shape.weight * place, shape.weight * (place + 1))
            own = part == place
            m.d.sync += [
                port.data[bits].eq(Mux(own, chunk, 0)),
                port.lanes[lanes].eq((own | first).replicate(shape.weight)),
            ]

    def _write_key(self, m: Module, word: Signal, row: Signal) -> None:
        """A token to column `row`; the columns behind it, which may get none, are cleared."""
        n, port = self.shape.lanes, self.weight
        m.d.sync += [port.en.eq(1), port.addr.eq(word)]
        for column in range(self.shape.columns):
            bits = slice(8 * n * column, 8 * n * (column + 1))
            m.d.sync += [
                port.data[bits].eq(Mux(row == column, self.chunk[: 8 * n], 0)),
                port.lanes[n * column : n * (column + 1)].eq((row <= column).replicate(n)),
            ]

    def _write_values(
        self, m: Module, area: Value, word: Signal, part: Signal, row: Signal
    ) -> None:
        """Bytes of a token to lane `row` of a column each; the first token of a word clears the
        other lanes, and with the first channels the other columns."""
        n, shape, port = self.shape.lanes, self.shape, self.weight
        first = row == 0
        clear = first & (area.sub == 0)
        m.d.sync += [port.en.eq(1), port.addr.eq(word)]
        for column in range(shape.columns):
            own = area.sub == column // shape.column
            byte = self.chunk[8 * (column % shape.column) : 8 * (column % shape.column + 1)]
            for lane in range(n):
                at = column * n + lane
                here = own & (row == lane)
                m.d.sync += [
                    port.data[8 * at : 8 * at + 8].eq(Mux(here, byte, 0)),
                    port.lanes[at].eq(here | own & first | clear),
                ]

    def _keep(
        self, m: Module, take: Value, end: Value, index: Signal, bitmaps: SyncFIFOBuffered
    ) -> None:
        """Bitmaps of the chunks taken, one cycle later, and what their instruction had."""
        n = self.shape.lanes
        m.submodules.counted = counted = SyncFIFOBuffered(
            width=counted_layout().size, depth=self.shape.bitmaps
        )
        kept, valid, last = Signal(self.kept), Signal(), Signal()
        outliers, words = Signal(COUNT_BITS), Signal(COUNT_BITS)
        m.d.sync += valid.eq(take)
        with m.If(take):
            m.d.sync += [kept.index.eq(index), kept.bitmap.eq(self.chunk[:n]), last.eq(end)]
        totals = Signal(counted_layout())
        some = kept.bitmap.any()
        m.d.comb += [
            kept.count.eq(population(kept.bitmap)),
            totals.outliers.eq(outliers + kept.count), totals.words.eq(words + some),
            bitmaps.w_data.eq(kept), bitmaps.w_en.eq(valid & some),
            counted.w_data.eq(totals), counted.w_en.eq(valid & last),
            self.counted.payload.eq(counted.r_data), self.counted.valid.eq(counted.r_rdy),
            counted.r_en.eq(self.counted.ready),
        ]  # fmt: skip
        with m.If(valid):
            m.d.sync += [outliers.eq(totals.outliers), words.eq(totals.words)]
            with m.If(last):
                m.d.sync += [outliers.eq(0), words.eq(0)]


def _spread(values: list[Value], bits: int) -> Value:
    """Signed lanes extended or cut to `bits` each."""
    wide = []
    for value in values:
        missing = bits - len(value)
        wide.append(Cat(value, value[-1].replicate(missing)) if missing > 0 else value[:bits])
    return Cat(wide)
