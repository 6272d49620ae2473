"""COPY: accumulator words to another place of the accumulator scratchpad."""

from __future__ import annotations

from amaranth import Module, Signal

from signmask.hw.delays import delays
from signmask.hw.instruction import fields
from signmask.hw.sfu.operation import Operation
from signmask.hw.sfu.word_counter import WordCounter
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.timing import COPY_FILL


class Copy(Operation):
    """Executes COPY. Source and target do not overlap, or the target lies before the source."""

    def __init__(self, config: HardwareConfig) -> None:
        super().__init__(config, "COPY", ("accumulator", "result"))

    def elaborate(self, platform: object) -> Module:
        """Read, register, write."""
        m = Module()
        start, _, _ = self.latch(m)
        m.submodules.counter = counter = WordCounter()
        words = fields(self.name, self.instruction.payload)["words"]
        ages = delays(m, counter.word, COPY_FILL - 1, "word")
        held = Signal.like(self.result.data)
        with m.If(ages[1].valid):
            m.d.sync += held.eq(self.accumulator.data)
        m.d.comb += [
            counter.start.eq(start), counter.words.eq(words),
            counter.planes.eq(1), counter.images.eq(1),
            self.accumulator.en.eq(ages[0].valid),
            self.accumulator.addr.eq(self.walk(m, start, "accumulator", ages[0].valid)),
            self.result.en.eq(ages[-1].valid),
            self.result.addr.eq(self.walk(m, start, "output", ages[-1].valid)),
            self.result.data.eq(held),
            self.result.lanes.eq(ages[-1].valid.replicate(len(self.result.lanes))),
            self.done.eq(ages[-1].final),
        ]  # fmt: skip
        return m
