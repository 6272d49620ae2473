"""Store unit: scratchpads to memory over one AXI write port."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from signmask.hw.axi import ADDRESS_BITS, AxiWrite
from signmask.hw.dma.bursts import SIZE_BITS, Bursts, block_beats
from signmask.hw.dma.chunks import ChunkReader, Content
from signmask.hw.fetch import bus_bytes
from signmask.hw.gearbox import Packer
from signmask.hw.instruction import InstructionStream, fields, opcode
from signmask.hw.ports import MovedEvent, ReadPort
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import FORMATS, Traffic

BURST_BITS = 16  # of the numbers of bursts, which wrap around
SHORTEST = 8  # cycles between two instructions, at least


class StoreUnit(wiring.Component):
    """Instructions of the store queue (`docs/isa.md`), one at a time until the last beat has left;
    responses of the memory are awaited beside the next ones.

    STORE_DELTAS walks its words twice: once for the bitmaps and inliers, then the words that had
    outliers for the list. The cycles are those of `timing` (store_area, store_list, store_done);
    an instruction without words is not allowed. Raises ConfigError for a bus width that is no power
    of two.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.config = config
        self.beat = bus_bytes(config)
        self.reader = ChunkReader(config)
        n = config.group
        super().__init__(
            {
                "instruction": In(InstructionStream), "done": Out(1),
                "axi": Out(AxiWrite(config.axi_bytes)), "moved": Out(MovedEvent()),
                "accumulator": Out(ReadPort(config.accumulator_words, n * 32)),
                "parameter": Out(ReadPort(config.parameter_words, n * 48)),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Accept, bytes, beats, run; for deltas with outliers again from the second on."""
        m = Module()
        m.submodules.reader = reader = self.reader
        m.submodules.packer = packer = Packer(reader.chunk_bytes, self.beat)
        m.submodules.bursts = bursts = Bursts(self.config)
        wiring.connect(m, bursts.request, wiring.flipped(self.axi.aw))
        for name in ("accumulator", "parameter"):
            wiring.connect(m, getattr(reader, name), wiring.flipped(getattr(self, name)))
        wiring.connect(m, reader.chunks, packer.chunks)
        low = (self.beat - 1).bit_length()
        word = Signal(256)
        address, size = Signal(ADDRESS_BITS), Signal(SIZE_BITS)
        beats, left, moved = Signal(SIZE_BITS), Signal(SIZE_BITS), Signal(SIZE_BITS)
        listing, kind = Signal(), Signal(4)
        m.d.comb += [
            packer.skip.eq(address), bursts.address.eq(address), bursts.beats.eq(beats),
            beats.eq((size + address[:low] + (self.beat - 1)) >> low),
        ]  # fmt: skip
        sent = self._write(m, packer, bursts, address, left == 1)
        ended = Signal()
        accept = self._answers(m, bursts, ended)
        with m.FSM():
            with m.State("ACCEPT"):
                m.d.comb += self.instruction.ready.eq(accept)
                m.d.sync += listing.eq(0)
                with m.If(self.instruction.valid & accept):
                    m.d.sync += [word.eq(self.instruction.payload), moved.eq(0)]
                    m.next = "SIZE"
            with m.State("SIZE"):
                self._decode(m, word, listing, address, size, kind)
                m.next = "AREA"
            with m.State("AREA"):
                m.d.comb += [packer.restart.eq(1), bursts.start.eq(1), reader.start.eq(1)]
                m.d.sync += [left.eq(beats), moved.eq(moved + size)]
                m.next = "RUN"
            with m.State("RUN"), m.If(sent):
                m.d.sync += left.eq(left - 1)
                with m.If(left == 1):
                    again = (opcode(word) == FORMATS["STORE_DELTAS"].opcode) & ~listing
                    with m.If(again & (reader.outliers != 0)):
                        m.d.sync += listing.eq(1)
                        m.next = "SIZE"
                    with m.Else():
                        m.d.comb += ended.eq(1)
                        m.next = "ACCEPT"
        m.d.comb += [
            reader.listing.eq(listing),
            self.moved.valid.eq(ended), self.moved.kind.eq(kind), self.moved.bytes.eq(moved),
            packer.beats.ready.eq(sent),
        ]  # fmt: skip
        return m

    def _decode(
        self, m: Module, word: Signal, listing: Signal, address: Signal, size: Signal, kind: Signal
    ) -> None:
        """Address and bytes of the next area, and what the reader makes of its words."""
        reader, n = self.reader, self.config.group
        words, factor = Signal(24), Signal(7)  # bytes: words * factor * n / 8
        base = Signal(24)
        start, content = Signal(ADDRESS_BITS), Signal(Content)
        entry, bits, wide = Signal(4), Signal(5), Signal()
        m.d.comb += factor.eq(entry << 3)
        with m.Switch(opcode(word)):
            with m.Case(FORMATS["STORE_DELTAS"].opcode):
                f = fields("STORE_DELTAS", word)
                m.d.comb += [
                    start.eq(Mux(listing, f["list"], f["address"])), words.eq(f["words"]),
                    factor.eq(f["inlier_bits"] + 1), bits.eq(f["inlier_bits"]),
                    wide.eq(f["wide_bytes"][2]), base.eq(f["accumulator"]),
                    content.eq(Content.DELTAS),
                ]  # fmt: skip
                m.d.sync += kind.eq(Traffic.DELTAS.value)
            with m.Case(FORMATS["STORE_PARAMETERS"].opcode):
                f = fields("STORE_PARAMETERS", word)
                m.d.comb += [
                    start.eq(f["address"]), words.eq(f["words"]), entry.eq(f["entry_bytes"]),
                    base.eq(f["parameter"]), content.eq(Content.PARAMETERS),
                ]  # fmt: skip
                m.d.sync += kind.eq(Traffic.PARAMETERS.value)
            with m.Default():
                f = fields("STORE_RAW", word)
                m.d.comb += [
                    start.eq(f["address"]), words.eq(f["words"]), entry.eq(f["entry_bytes"]),
                    base.eq(f["accumulator"]), content.eq(Content.RAW),
                ]  # fmt: skip
                m.d.sync += kind.eq(f["kind"])
        outliers = reader.outliers
        m.d.sync += [
            address.eq(start),
            size.eq(
                Mux(
                    listing,
                    Mux(wide, outliers << 2, outliers << 1),
                    words * factor * (n // 8),
                )
            ),
            reader.content.eq(content), reader.base.eq(base), reader.words.eq(words),
            reader.entry.eq(Cat(entry[1] | entry[3], entry[2] | entry[3])),
            reader.bits.eq(bits), reader.wide.eq(wide),
        ]  # fmt: skip

    def _write(
        self, m: Module, packer: Packer, bursts: Bursts, address: Signal, final: Value
    ) -> Value:
        """The write channel: beats of bursts whose request was accepted; returns `sent`."""
        w, beats = self.axi.w, packer.beats
        low = (self.beat - 1).bit_length()
        block = block_beats(self.beat)
        place = Signal(range(block))
        granted = Signal(BURST_BITS)
        sent = Signal()
        m.d.comb += [
            w.valid.eq(beats.valid & (granted != 0)),
            w.data.eq(beats.payload.data), w.strb.eq(beats.payload.strb),
            w.last.eq(final | (place == block - 1)),
            sent.eq(w.valid & w.ready),
        ]  # fmt: skip
        with m.If(packer.restart):
            m.d.sync += place.eq(address[low:])
        with m.Elif(sent):
            m.d.sync += place.eq(place + 1)
        ended = sent & w.last
        with m.If(bursts.issued & ~ended):
            m.d.sync += granted.eq(granted + 1)
        with m.Elif(~bursts.issued & ended):
            m.d.sync += granted.eq(granted - 1)
        return sent

    def _answers(self, m: Module, bursts: Bursts, ended: Signal) -> Value:
        """`done` when an instruction's last burst is answered; returns whether another instruction
        may start."""
        depth = (self.config.memory_latency + 16) // SHORTEST + 2
        m.submodules.ends = ends = SyncFIFOBuffered(width=BURST_BITS, depth=depth)
        issued, answered = Signal(BURST_BITS), Signal(BURST_BITS)
        b = self.axi.b
        m.d.comb += [
            b.ready.eq(1), ends.w_data.eq(issued), ends.w_en.eq(ended),
            self.done.eq(ends.r_rdy & (ends.r_data == answered)), ends.r_en.eq(self.done),
        ]  # fmt: skip
        with m.If(bursts.issued):
            m.d.sync += issued.eq(issued + 1)
        with m.If(b.valid):
            m.d.sync += answered.eq(answered + 1)
        return ends.w_rdy
