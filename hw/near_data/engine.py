"""Near-data engine: state of mask boundaries and streams, beside the memory."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.axi import AxiRead, AxiWrite
from signmask.hw.instruction import InstructionStream, fields, opcode
from signmask.hw.near_data import prepare as p
from signmask.hw.near_data import shape as s
from signmask.hw.near_data import update_codes as u
from signmask.hw.near_data.arrivals import Arrivals
from signmask.hw.near_data.constants import Constants
from signmask.hw.near_data.control import Control
from signmask.hw.near_data.delta_reader import DeltaReader
from signmask.hw.near_data.descriptor import Descriptor
from signmask.hw.near_data.drain import Drain
from signmask.hw.near_data.fetch import Fetch
from signmask.hw.near_data.frames import FrameRing
from signmask.hw.near_data.job import OPERATIONS, Job
from signmask.hw.near_data.prepare import Prepare
from signmask.hw.near_data.read_buffer import ReadBuffer
from signmask.hw.near_data.scan import Scan
from signmask.hw.near_data.shape import Shape, granule
from signmask.hw.near_data.table_items import ITEMS
from signmask.hw.near_data.tables import LINE, NARROW, SEGMENT_TABLE, WIDE, TableLoader
from signmask.hw.near_data.update_codes import UpdateCodes
from signmask.hw.near_data.update_stream import ReadCodes, UpdateStream
from signmask.hw.near_data.write_buffer import WriteBuffer
from signmask.hw.ports import CountEvent
from signmask.hw.scratchpad import Scratchpad
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import FORMATS

STEP_BITS = 16
COUNT_BITS = 16
BYTES_BITS = 32


class NearDataEngine(wiring.Component):
    """Executes PREPARE, UPDATE_CODES, UPDATE_STREAM and READ, one at a time (`docs/isa.md`).

    `done` pulses in the last cycle of an instruction, together with `moved_bytes`; `ready` is high
    again in the next. `segment_changes` and `saturated` pulse any number of times up to then.
    `now`, `last` and `after_dense` are held while an instruction runs. Regions in memory begin at
    multiples of 64 bytes, chunks of dy are whole planes, and a boundary's tables and constants fit
    `engine_words` words (`engine_timing.table_words`). Raises ConfigError for near_data_bytes that
    are no power of two.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.shape = Shape(config)
        beat = config.near_data_bytes
        super().__init__(
            {
                "instruction": In(InstructionStream), "done": Out(1),
                "read": Out(AxiRead(beat)), "write": Out(AxiWrite(beat)),
                "now": In(STEP_BITS), "last": In(STEP_BITS), "after_dense": In(1),
                "moved_bytes": Out(
                    wiring.Signature({"valid": Out(1), "bytes": Out(BYTES_BITS)})
                ),
                "segment_changes": Out(CountEvent(COUNT_BITS)),
                "saturated": Out(CountEvent(COUNT_BITS)),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Parts of the engine, connected."""
        m = Module()
        shape = self.shape
        self._m = m
        m.submodules.descriptor = self._descriptor = descriptor = Descriptor()
        m.submodules.job = self._job = job = Job(shape, descriptor)
        ring = FrameRing(shape)
        m.submodules.fetch = self._fetch = fetch = Fetch(shape, job, ring)
        m.submodules.arrivals = self._arrivals = arrivals = Arrivals()
        m.submodules.tables = self._tables = TableLoader(shape)
        m.submodules.constants = self._constants = Constants(shape, job, fetch.items)
        m.submodules.scan = self._scan = scan = Scan(shape, job, ring)
        m.submodules.control = self._control = control = Control(shape, job, ring, fetch.items)
        self._buffers()
        m.submodules.drain = self._drain = Drain(shape, job, self._outs)
        self._clear = Signal()
        parts: tuple[Any, ...] = (
            descriptor, fetch, arrivals, self._tables, self._constants, scan, control, self._drain,
            *self._reads.values(), *self._outs,
        )  # fmt: skip
        for part in parts:
            m.d.comb += part.clear.eq(self._clear)
        self._instruction()
        self._channels()
        self._table_path()
        m.d.comb += [
            scan.arrived.eq(arrivals.scan), control.arrived.eq(arrivals.frame),
            fetch.counts_valid.eq(scan.counts_valid), scan.counts_take.eq(fetch.counts_take),
            *(a.eq(b) for a, b in zip(fetch.counts, scan.counts, strict=True)),
            fetch.freed.eq(control.freed), self._drain.finished.eq(control.finished),
            control.drained.eq(self._drain.drained),
        ]  # fmt: skip
        self._passes(ring)
        return m

    def _buffers(self) -> None:
        """Read buffers by stream (raw values and correction lists share one), write buffers."""
        shape, m = self.shape, self._m
        n, beat = shape.n, shape.beat
        packed = granule(n // 8, 2)
        reads = {
            s.DY: ("dy", shape.packed(1 + s.DELTA_BITS), granule(n // 8)),
            s.CORRECTION: ("correction", shape.packed(1 + s.RESIDUE_BITS), granule(n // 8)),
            s.RAW: ("raw", 4 * n, 2), s.X_HAT: ("x_hat", 2 * n, 2 * granule(n)),
            s.SEGMENTS: ("segments", shape.packed(s.SEGMENT_BITS), granule(n // 8)),
            s.DY_LIST: ("dy_list", 4 * n, 2),
        }  # fmt: skip
        self._reads = {}
        for stream, (name, chunk, unit) in reads.items():
            buffer = ReadBuffer(name, beat, chunk, shape.read_beats(chunk), unit)
            m.submodules[f"read_{name}"] = self._reads[stream] = buffer
        outs = (
            ("words", 4 * n, packed), ("out_segments", shape.packed(s.SEGMENT_BITS), packed),
            ("list", 2 * n, packed), ("out_table", 16 * n, granule(4 * n, 64)),
        )  # fmt: skip
        self._outs = []
        for name, chunk, unit in outs:
            buffer = WriteBuffer(name, beat, chunk, shape.write_beats(chunk), unit)
            m.submodules[f"write_{name}"] = buffer
            self._outs.append(buffer)

    def _instruction(self) -> None:
        """Start and end of an instruction."""
        m, job, fetch, tables = self._m, self._job, self._fetch, self._tables
        busy, begin, known = Signal(), Signal(), Signal(3)
        word = self.instruction.payload
        operation = {name: opcode(word) == FORMATS[name].opcode for name in OPERATIONS}
        m.d.comb += [
            self.instruction.ready.eq(~busy),
            self._clear.eq(self.instruction.valid & ~busy),
            self.done.eq(busy & self._control.complete & self._drain.idle),
            self.moved_bytes.valid.eq(self.done),
            self.moved_bytes.bytes.eq(fetch.moved + sum(out.moved for out in self._outs)),
        ]
        m.d.sync += [begin.eq(self._clear), known.eq(Cat(tables.line_valid & tables.line_last,
                                                         known))]  # fmt: skip
        with m.If(self._clear):
            m.d.sync += [
                busy.eq(1), job.after_dense.eq(self.after_dense),
                job.prepare.eq(operation["PREPARE"]), job.codes.eq(operation["UPDATE_CODES"]),
                job.stream.eq(operation["UPDATE_STREAM"]), job.read.eq(operation["READ"]),
                fetch.descriptor_address.eq(fields("READ", word)["descriptor"]),
            ]  # fmt: skip
        with m.Elif(self.done):
            m.d.sync += busy.eq(0)
        m.d.comb += [
            fetch.begin.eq(begin), job.load.eq(known[0]), fetch.proceed.eq(known[2]),
            self._drain.start.eq(known[2]), self._descriptor.stream.eq(job.stream | job.read),
            fetch.items.now.eq(self.now), fetch.items.last.eq(self.last),
            fetch.items.clear.eq(self._clear),
        ]  # fmt: skip

    def _channels(self) -> None:
        """Memory ports: every beat is a burst of its own."""
        m, fetch, arrivals, drain = self._m, self._fetch, self._arrivals, self._drain
        ar, r, aw, w = self.read.ar, self.read.r, self.write.aw, self.write.w
        m.d.comb += [
            ar.valid.eq(fetch.valid), fetch.ready.eq(ar.ready), ar.addr.eq(fetch.address),
            ar.len.eq(0), arrivals.tag_valid.eq(fetch.tag_valid), arrivals.tag.eq(fetch.tag),
            arrivals.valid.eq(r.valid), r.ready.eq(arrivals.ready),
            arrivals.hold.eq(self._tables.buffer.full),
            aw.valid.eq(drain.aw_valid), drain.aw_ready.eq(aw.ready), aw.addr.eq(drain.address),
            aw.len.eq(0), w.valid.eq(drain.w_valid), drain.w_ready.eq(w.ready),
            w.data.eq(drain.data), w.strb.eq(drain.strobes), w.last.eq(1),
            self.write.b.ready.eq(1), drain.acknowledged.eq(self.write.b.valid),
            self._tables.buffer.write.eq(arrivals.write[s.TABLES]),
            self._tables.buffer.data.eq(r.data),
        ]  # fmt: skip
        for stream, buffer in self._reads.items():
            write: Value = arrivals.write[stream]
            if stream == s.RAW:
                write = write | arrivals.write[s.CORRECTION_LIST]
            m.d.comb += [buffer.write.eq(write), buffer.data.eq(r.data)]

    def _table_path(self) -> None:
        """Descriptor lines, table words, and the table memory with its users."""
        m, fetch, tables, job = self._m, self._fetch, self._tables, self._job
        shape, constants = self.shape, self._constants
        items = fetch.items
        kind = Mux(
            items.index == ITEMS.index("segments"), SEGMENT_TABLE,
            Mux(items.narrow, NARROW, WIDE),
        )  # fmt: skip
        m.d.comb += [
            tables.enter.eq(fetch.table_valid), tables.size.eq(fetch.table_size),
            tables.skip.eq(fetch.table_skip), tables.target.eq(items.outputs),
            tables.kind.eq(Mux(items.take, kind, LINE)),
            self._descriptor.valid.eq(tables.line_valid), self._descriptor.line.eq(tables.line),
            constants.complete.eq(fetch.tables_sent & tables.idle),
            self._control.constants.eq(constants.ready), self._control.gains.eq(constants.gains),
        ]  # fmt: skip
        n = shape.n
        memory = Scratchpad("engine_tables", shape.config.engine_words, 48 * n, n)
        m.submodules.memory = memory
        port = memory.write_port()
        m.d.comb += [
            port.en.eq(tables.write), port.addr.eq(tables.address), port.data.eq(tables.data),
            port.lanes.eq((1 << n) - 1),
        ]  # fmt: skip
        for i in range(3):
            wiring.connect(m, getattr(constants.unit, f"read_{i}"), memory.read_port())
        for i in range(2):
            wiring.connect(m, getattr(constants.unit, f"write_{i}"), memory.write_port())
        early, late = self._control.stages[p.START - 1], self._control.stages[u.START - 1]
        self._table_words = []
        for i in range(2):
            port = memory.read_port()
            m.d.comb += [
                port.en.eq(Mux(job.codes, late.valid, early.valid & job.prepare)),
                port.addr.eq(Mux(job.codes, late.fields[f"table_{i}"], early.fields[f"table_{i}"])),
            ]
            self._table_words.append(port.data)

    def _read(self, stream: int, index: int, when: Value, size: Value, at: int) -> None:
        """Read stream `index` from its buffer with the words in stage `at`."""
        stage, buffer = self._control.stages[at], self._reads[stream]
        restart, skip = self._control.restart(index, stage)
        with self._m.If(when):
            self._m.d.comb += [
                buffer.read.eq(stage.valid & ~stage.gain), buffer.size.eq(size),
                buffer.restart.eq(restart), buffer.skip.eq(skip),
            ]  # fmt: skip

    def _passes(self, ring: FrameRing) -> None:
        """Datapaths, their operands and results."""
        m, job, scan = self._m, self._job, self._scan
        shape, stages, reads = self.shape, self._control.stages, self._reads
        field = self._descriptor.field
        delta = job.codes | job.stream
        part = [ring.part[stage.slot] for stage in stages[:3]]
        latency = ReadBuffer.LATENCY
        deltas = DeltaReader("delta", shape, stages, ring, s.DY_LIST, scan.memories[0], 32)
        corrections = DeltaReader(
            "replayed", shape, stages, ring, s.CORRECTION_LIST, scan.memories[1], 9
        )
        m.submodules.deltas, m.submodules.corrections = deltas, corrections
        closed_codes = job.codes & job.closed
        m.d.comb += [
            deltas.enabled.eq(delta), corrections.enabled.eq(closed_codes),
            deltas.wide.eq(job.per_part(self._descriptor.part("y_bytes"), part[1])[2]),
            deltas.chunk.eq(reads[s.DY_LIST].chunk), corrections.chunk.eq(reads[s.RAW].chunk),
            scan.chunks[0].eq(reads[s.DY].chunk), scan.chunks[1].eq(reads[s.CORRECTION].chunk),
        ]  # fmt: skip
        for reader, stream, when in (
            (deltas, s.DY_LIST, delta), (corrections, s.RAW, closed_codes),
        ):  # fmt: skip
            with m.If(when):
                m.d.comb += [
                    reads[stream].read.eq(reader.read), reads[stream].size.eq(reader.size),
                    reads[stream].restart.eq(reader.restart), reads[stream].skip.eq(reader.skip),
                ]  # fmt: skip
        for stream, when in ((s.DY, delta), (s.CORRECTION, closed_codes)):
            with m.If(when):
                m.d.comb += [
                    reads[stream].read.eq(scan.read),
                    reads[stream].size.eq(job.size(stream, ring.part[scan.slot])),
                    reads[stream].restart.eq(scan.first & ring.restart[stream][scan.slot]),
                    reads[stream].skip.eq(ring.skip[stream][scan.slot]),
                ]
        self._read(s.CORRECTION, s.CORRECTION, job.codes & job.carry, job.correction_bytes,
                   u.START - latency)  # fmt: skip
        raw_at = UpdateStream.START - latency
        self._read(s.RAW, s.RAW, job.stream, job.size(s.RAW, part[raw_at]), raw_at)
        self._read(s.RAW, s.RAW, job.read | job.prepare & job.areas[s.RAW],
                   job.size(s.RAW, part[0]), 0)  # fmt: skip
        for when, stage in (
            (job.codes, u.SENT), (job.prepare & job.closed, p.CODED)
        ):  # fmt: skip
            self._read(s.X_HAT, s.X_HAT, when, job.size(s.X_HAT, part[0]), stage - latency)
        for when, stage in ((job.codes, u.START), (job.prepare, p.CODED)):
            self._read(s.SEGMENTS, s.SEGMENTS, when & job.areas[s.SEGMENTS],
                       job.segment_bytes, stage - latency)  # fmt: skip

        prepare = Prepare(shape, job, stages, self._tables)
        codes = UpdateCodes(shape, job, stages, self._tables, deltas.values, corrections.values)
        stream = UpdateStream(shape, job, stages, deltas.values)
        read = ReadCodes(shape, job, stages)
        m.submodules.prepare, m.submodules.codes = prepare, codes
        m.submodules.stream, m.submodules.codes_read = stream, read
        raw_words = self._raw(ring, reads[s.RAW].chunk)
        m.d.comb += [
            prepare.raw.eq(raw_words), stream.raw.eq(raw_words), read.raw.eq(raw_words),
            *(a.eq(b) for a, b in zip(prepare.constants, self._table_words, strict=True)),
            codes.gain.eq(self._table_words[0]),
            prepare.x_hat.eq(reads[s.X_HAT].chunk), codes.x_hat.eq(reads[s.X_HAT].chunk),
            prepare.segment.eq(reads[s.SEGMENTS].chunk), codes.segment.eq(reads[s.SEGMENTS].chunk),
            codes.residue.eq(reads[s.CORRECTION].chunk),
            self.segment_changes.valid.eq(prepare.changes_valid),
            self.segment_changes.count.eq(prepare.changes),
            self.segment_changes.index.eq(field["source"]),
            self.saturated.valid.eq(stream.saturated_valid),
            self.saturated.count.eq(stream.saturated), self.saturated.index.eq(field["source"]),
        ]  # fmt: skip
        self._results(prepare, codes, stream, read)

    def _raw(self, ring: FrameRing, chunk: Value) -> Value:
        """The raw chunk as n signed values of 32 bits: it comes for one stage at a time."""
        m, job, n = self._m, self._job, self.shape.n
        stages = self._control.stages
        wides = self._descriptor.part("y_bytes")
        wide = Signal()
        early = ReadBuffer.LATENCY
        m.d.comb += wide.eq(
            Mux(job.stream, wides[0][2], job.per_part(wides, ring.part[stages[early].slot])[2])
        )
        short = Cat(
            Cat(chunk[16 * i : 16 * (i + 1)], chunk[16 * i + 15].replicate(16)) for i in range(n)
        )
        return Mux(wide, chunk, short)

    def _results(
        self, prepare: Prepare, codes: UpdateCodes, stream: UpdateStream, read: ReadCodes
    ) -> None:
        """Pushes to the write buffers, and where their first beats begin."""
        m, job = self._m, self._job
        low = self.shape.beat_bits
        area, segments, list_, gains = prepare.pushes()
        x_hat, residues = codes.pushes()
        y, sums = stream.pushes()
        outs = self._outs
        # Lists of planes begin where the plane's place in the region does.
        place, following = Signal(low), Signal(low)
        stage = list_.stage
        m.d.comb += following.eq(
            Mux(stage.first, job.goal(s.OUT_LIST)[:low], place + job.plane_list_bytes[:low])
        )
        with m.If(stage.valid & stage.head & list_.region):
            m.d.sync += place.eq(following)
        for out, passes in (
            (s.OUT_WORDS, ((area, job.prepare), (x_hat, job.codes), (y, job.stream),
                           (read.push(), job.read))),
            (s.OUT_SEGMENTS, ((segments, job.prepare),)),
            (s.OUT_LIST, ((list_, job.prepare), (residues, job.codes & job.carry))),
            (s.OUT_TABLE, ((gains, job.prepare), (sums, job.stream))),
        ):  # fmt: skip
            for push, when in passes:
                skip = following if push is list_ else job.goal(out)[:low]
                push.connect(m, outs[out], when & job.outs[out], skip)
