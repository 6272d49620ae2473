"""ENCODE_RAW: raw values to codes, and codes or their differences to operands."""

from __future__ import annotations

from amaranth import Array, Cat, Module, Mux, Signal

from signmask.hw.activation import SEGMENTS, RawActivation
from signmask.hw.rounding import lanes_of
from signmask.hw.sfu.differencing import CODE_BITS, Differencing
from signmask.hw.sfu.encoder import Encoder
from signmask.hw.sfu.operation import ENTRY_BITS
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.timing import ENCODE_RAW_FILL

TABLE_WORDS = 3


class EncodeRaw(Encoder):
    """Executes ENCODE_RAW; previous codes are the low 16 bits of their words.

    Constants are read at the first word of each frame. The three segment words are read beside the
    first words and are there before the first z.
    """

    AGES = ENCODE_RAW_FILL - 1

    def __init__(self, config: HardwareConfig) -> None:
        self.lanes = config.group
        super().__init__(
            config,
            "ENCODE_RAW",
            (
                "accumulator", "addend", "result", "operand", "parameter_0", "parameter_1",
                "parameter_2", "deltas",
            ),
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Reads, activation, back end, writes."""
        m = Module()
        n = self.lanes
        start, busy, f = self.latch(m)
        m.submodules.activation = activation = RawActivation(self.config)
        m.submodules.differencing = back = Differencing(self.config)
        ages = self.issue(m, start)
        now, write, coded = ages[0], ages[-1], ages[1 + activation.LATENCY]
        before = ages[activation.LATENCY]  # its previous code is there one cycle later
        shared = f["shared_constants"]
        constants = self.walk(
            m, start, "constants", Mux(shared, now.plane_end, now.last),
            Mux(shared, 2, f["constants_stride"]),
        )  # fmt: skip
        m.d.comb += [
            self.accumulator.en.eq(now.valid),
            self.accumulator.addr.eq(self.walk(m, start, "accumulator", now.valid)),
            self.parameter_0.en.eq(now.first), self.parameter_0.addr.eq(constants),
            self.parameter_1.en.eq(now.first), self.parameter_1.addr.eq(constants + 1),
            activation.en.eq(busy),
            activation.y.eq(self.accumulator.data),
            activation.a.eq(self.parameter_0.data), activation.b.eq(self.parameter_1.data),
            activation.z_shift.eq(f["z_shift"]), activation.code_shift.eq(f["code_shift"]),
            activation.low.eq(f["low"]), activation.high.eq(f["high"]),
            self.addend.en.eq(before.valid & f["difference"]),
            self.addend.addr.eq(self.walk(m, start, "previous", before.valid)),
            back.word.eq(coded), back.codes.eq(activation.code),
            back.previous.eq(Cat(v[:CODE_BITS] for v in lanes_of(self.addend.data, n))),
            back.difference.eq(f["difference"]),
            self.result.en.eq(write.valid),
            self.result.addr.eq(self.walk(m, start, "codes", write.valid)),
            self.result.data.eq(back.result),
            self.result.lanes.eq(write.valid.replicate(n)),
        ]  # fmt: skip
        self._tables(m, start, activation)
        self.send(m, back, start, f, write)
        return m

    def _tables(self, m: Module, start: Signal, activation: RawActivation) -> None:
        """Reads breaks, slopes and intercepts in the three cycles after the start."""
        tables = Array(
            Signal(len(port), name=name)
            for name, port in (
                ("breaks", activation.breaks), ("slopes", activation.slopes),
                ("intercepts", activation.intercepts),
            )
        )  # fmt: skip
        index, arrived = (
            Signal(range(TABLE_WORDS + 1), init=TABLE_WORDS),
            Signal(range(TABLE_WORDS)),
        )
        reading, arriving = Signal(), Signal()
        m.d.comb += [
            reading.eq(index != TABLE_WORDS),
            self.parameter_2.en.eq(reading),
            self.parameter_2.addr.eq(self.walk(m, start, "segments", reading)),
            activation.breaks.eq(tables[0]),
            activation.slopes.eq(tables[1]),
            activation.intercepts.eq(tables[2]),
        ]
        m.d.sync += [arriving.eq(reading), arrived.eq(index)]
        with m.If(start):
            m.d.sync += index.eq(0)
        with m.Elif(reading):
            m.d.sync += index.eq(index + 1)
        entries = self.parameter_2.data[: SEGMENTS * ENTRY_BITS]
        for i, table in enumerate(tables):
            with m.If(arriving & (arrived == i)):
                m.d.sync += table.eq(entries)
