"""ENCODE_MASK: changes of raw values to differences of codes, through the segment's slope."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal

from signmask.hw.activation import OPEN, SEGMENTS, MaskedActivation
from signmask.hw.rounding import lanes_of
from signmask.hw.sfu.differencing import CODE_BITS, Differencing
from signmask.hw.sfu.encoder import Encoder
from signmask.hw.sfu.operation import ENTRY_BITS
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.timing import ENCODE_MASK_FILL


class EncodeMask(Encoder):
    """Executes ENCODE_MASK. The gain is read at the first word of each frame, the slopes beside
    the first word."""

    AGES = ENCODE_MASK_FILL - 1

    def __init__(self, config: HardwareConfig) -> None:
        self.lanes = config.group
        super().__init__(
            config,
            "ENCODE_MASK",
            (
                "accumulator", "segments", "corrections", "operand", "parameter_0", "parameter_2",
                "deltas",
            ),
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Reads, activation, back end, writes."""
        m = Module()
        n = self.lanes
        start, busy, f = self.latch(m)
        m.submodules.activation = activation = MaskedActivation(self.config)
        m.submodules.differencing = back = Differencing(self.config)
        ages = self.issue(m, start)
        now, write, encoded = ages[0], ages[-1], ages[1 + activation.LATENCY]
        gain_step = Mux(f["shared_constants"], now.plane_end, now.last)
        mask = self.walk(m, start, "mask", now.valid)
        deltas = lanes_of(activation.delta, n)
        m.d.comb += [
            self.accumulator.en.eq(now.valid),
            self.accumulator.addr.eq(self.walk(m, start, "accumulator", now.valid)),
            self.segments.en.eq(now.valid), self.segments.addr.eq(mask),
            self.corrections.en.eq(now.valid & (f["loop"] != OPEN)),
            self.corrections.addr.eq(mask),
            self.parameter_0.en.eq(now.first),
            self.parameter_0.addr.eq(self.walk(m, start, "gain", gain_step)),
            activation.en.eq(busy),
            activation.dy.eq(self.accumulator.data), activation.gain.eq(self.parameter_0.data),
            activation.segment.eq(self.segments.data),
            activation.correction.eq(self.corrections.data),
            activation.loop.eq(f["loop"]), activation.carry_bits.eq(f["carry_bits"]),
            activation.z_shift.eq(f["z_shift"]), activation.code_shift.eq(f["code_shift"]),
            back.word.eq(encoded),
            back.codes.eq(
                Cat(Cat(d, d[-1].replicate(CODE_BITS - len(d))) for d in deltas)
            ),
            back.difference.eq(1),
        ]  # fmt: skip
        self._slopes(m, start, activation)
        self.send(m, back, start, f, write)
        return m

    def _slopes(self, m: Module, start: Signal, activation: MaskedActivation) -> None:
        """Reads the second segment word in the cycle after the start."""
        reading, arriving = Signal(), Signal()
        slopes = Signal(SEGMENTS * ENTRY_BITS)
        table = self.walk(m, start, "segments", 0)
        m.d.sync += [reading.eq(start), arriving.eq(reading)]
        m.d.comb += [
            self.parameter_2.en.eq(reading), self.parameter_2.addr.eq(table + 1),
            activation.slopes.eq(slopes),
        ]  # fmt: skip
        with m.If(arriving):
            m.d.sync += slopes.eq(self.parameter_2.data[: SEGMENTS * ENTRY_BITS])
