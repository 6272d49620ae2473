"""ENCODE_SOURCE: codes of a source, or their differences, to operands."""

from __future__ import annotations

from amaranth import Cat, Module

from signmask.hw.instruction import fields
from signmask.hw.rounding import lanes_of
from signmask.hw.sfu.differencing import CODE_BITS, Differencing
from signmask.hw.sfu.operation import Operation, connect_event, delays
from signmask.hw.sfu.word_counter import WordCounter
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.timing import ENCODE_SOURCE_FILL


class EncodeSource(Operation):
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
        m.submodules.counter = counter = WordCounter()
        m.submodules.differencing = back = Differencing(self.config)
        word = fields(self.name, self.instruction.payload)
        ages = delays(m, counter.word, self.AGES, "word")
        now, write = ages[0], ages[-1]
        tracked = write.valid & f["difference"] & f["track"]
        m.d.comb += [
            counter.start.eq(start), counter.words.eq(word["words"]),
            counter.planes.eq(word["planes"]), counter.images.eq(1),
            self.accumulator.en.eq(now.valid),
            self.accumulator.addr.eq(self.walk(m, start, "accumulator", now.valid)),
            self.addend.en.eq(now.valid & f["difference"]),
            self.addend.addr.eq(self.walk(m, start, "previous", now.valid)),
            back.word.eq(ages[1]),
            back.codes.eq(Cat(v[:CODE_BITS] for v in lanes_of(self.accumulator.data, n))),
            back.previous.eq(Cat(v[:CODE_BITS] for v in lanes_of(self.addend.data, n))),
            back.difference.eq(f["difference"]), back.spill.eq(f["spill"]),
            back.source.eq(f["source"]), back.valid_lanes.eq(f["lanes"]),
            self.operand.en.eq(write.valid),
            self.operand.addr.eq(self.walk(m, start, "input", write.valid)),
            self.operand.data.eq(back.operand),
            self.operand.lanes.eq(write.valid.replicate(n)),
            self.result.en.eq(tracked),
            self.result.addr.eq(self.walk(m, start, "accumulator", write.valid, name="result")),
            self.result.data.eq(back.result),
            self.result.lanes.eq(tracked.replicate(n)),
            self.done.eq(write.final),
        ]  # fmt: skip
        connect_event(m, back.event, self.deltas)
        return m
