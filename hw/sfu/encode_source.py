"""ENCODE_SOURCE: codes of a source, or their differences, to operands."""

from __future__ import annotations

from amaranth import Cat, Module

from signmask.hw.rounding import lanes_of
from signmask.hw.sfu.differencing import CODE_BITS, Differencing
from signmask.hw.sfu.encoder import Encoder
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.timing import ENCODE_SOURCE_FILL


class EncodeSource(Encoder):
    """Executes ENCODE_SOURCE; codes, new and previous, are the low 16 bits of their words."""

    AGES = ENCODE_SOURCE_FILL - 1

    def __init__(self, config: HardwareConfig) -> None:
        self.lanes = config.group
        super().__init__(
            config, "ENCODE_SOURCE", ("accumulator", "addend", "result", "operand", "deltas")
        )

    def elaborate(self, platform: object) -> Module:
        """Reads, the back end, writes."""
        m = Module()
        n = self.lanes
        start, _, f = self.latch(m)
        m.submodules.differencing = back = Differencing(self.config)
        ages = self.issue(m, start, images=1)
        now, write = ages[0], ages[-1]
        tracked = write.valid & f["difference"] & f["track"]
        m.d.comb += [
            self.accumulator.en.eq(now.valid),
            self.accumulator.addr.eq(self.walk(m, start, "accumulator", now.valid)),
            self.addend.en.eq(now.valid & f["difference"]),
            self.addend.addr.eq(self.walk(m, start, "previous", now.valid)),
            back.word.eq(ages[1]),
            back.codes.eq(Cat(v[:CODE_BITS] for v in lanes_of(self.accumulator.data, n))),
            back.previous.eq(Cat(v[:CODE_BITS] for v in lanes_of(self.addend.data, n))),
            back.difference.eq(f["difference"]),
            self.result.en.eq(tracked),
            self.result.addr.eq(self.walk(m, start, "accumulator", write.valid, name="result")),
            self.result.data.eq(back.result),
            self.result.lanes.eq(tracked.replicate(n)),
        ]  # fmt: skip
        self.send(m, back, start, f, write)
        return m
