"""What ENCODE_RAW, ENCODE_MASK and ENCODE_SOURCE share: words issued, operands sent."""

from __future__ import annotations

from amaranth import Module, Signal, Value

from signmask.hw.delays import delays
from signmask.hw.instruction import fields
from signmask.hw.sfu.differencing import Differencing
from signmask.hw.sfu.operation import Operation, connect_event
from signmask.hw.sfu.word_counter import Word, WordCounter


class Encoder(Operation):
    """A vector instruction that writes codes or their differences to the input scratchpad.

    AGES is the number of cycles from the read of a word to its write.
    """

    AGES: int

    def issue(self, m: Module, start: Value, images: Value | int | None = None) -> list[Word]:
        """The word of each age, of the planes, and unless given the images, of the instruction."""
        word = fields(self.name, self.instruction.payload)
        m.submodules.counter = counter = WordCounter()
        m.d.comb += [
            counter.start.eq(start), counter.words.eq(word["words"]),
            counter.planes.eq(word["planes"]),
            counter.images.eq(word["images"] if images is None else images),
        ]  # fmt: skip
        return delays(m, counter.word, self.AGES, "word")

    def send(
        self, m: Module, back: Differencing, start: Value, f: dict[str, Signal], write: Word
    ) -> None:
        """Settings of the back end that are fields, its operands and counts; done with the last."""
        m.d.comb += [
            back.spill.eq(f["spill"]), back.source.eq(f["source"]),
            back.valid_lanes.eq(f["lanes"]),
            self.operand.en.eq(write.valid),
            self.operand.addr.eq(self.walk(m, start, "input", write.valid)),
            self.operand.data.eq(back.operand),
            self.operand.lanes.eq(write.valid.replicate(self.config.group)),
            self.done.eq(write.final),
        ]  # fmt: skip
        connect_event(m, back.event, self.deltas)
