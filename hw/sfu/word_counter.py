"""Walk over the words of an instruction: planes of images of positions."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.spec.timing import FRAME_DIVIDE_CYCLES, FRAME_WORDS

PLANE_BITS, IMAGE_BITS = 8, 6
FRAME_BITS = PLANE_BITS + IMAGE_BITS
DIGIT_BITS = 2
WORD_BITS = DIGIT_BITS * (FRAME_DIVIDE_CYCLES + 1)  # as in the formats of vector instructions


# Where an issued word lies; all zero without one. final: last of the instruction; first, last: of
# its frame; plane_end: last of its plane; last_plane: in the last plane.
WORD = data.StructLayout(
    dict.fromkeys(("valid", "final", "first", "last", "plane_end", "last_plane"), 1)
)
Word = data.View


class FrameDivider(wiring.Component):
    """words / frames, for at least 2 frames: two quotient bits with `start` and two per cycle.

    In: start, with words and frames, which holds until the quotient is `known`,
    FRAME_DIVIDE_CYCLES after the cycle behind the start.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1), "words": In(WORD_BITS), "frames": In(FRAME_BITS),
                "known": Out(1), "quotient": Out(WORD_BITS),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """The dividend moves out at the top of the quotient."""
        m = Module()
        rest, trial = Signal(FRAME_BITS + DIGIT_BITS), Signal(FRAME_BITS + DIGIT_BITS)
        count = Signal(range(FRAME_DIVIDE_CYCLES + 1))
        top = self.words[-DIGIT_BITS:]
        one = top >= self.frames  # the first digit: with 2 frames or more it is 0 or 1
        m.d.comb += [
            self.known.eq(count == 0),
            trial.eq(rest.shift_left(DIGIT_BITS) | self.quotient[-DIGIT_BITS:]),
        ]
        with m.If(self.start):
            m.d.sync += [
                self.quotient.eq(self.words[:-DIGIT_BITS].shift_left(DIGIT_BITS) | one),
                rest.eq(Mux(one, top - self.frames, top)), count.eq(FRAME_DIVIDE_CYCLES),
            ]  # fmt: skip
        with m.Elif(~self.known):
            m.d.sync += count.eq(count - 1)
            digit, below = Signal(DIGIT_BITS), Signal(FRAME_BITS + DIGIT_BITS)
            for k in range(1 << DIGIT_BITS):
                with m.If(trial >= k * self.frames):
                    m.d.comb += [digit.eq(k), below.eq(trial - k * self.frames)]
            m.d.sync += [
                self.quotient.eq(self.quotient.shift_left(DIGIT_BITS) | digit), rest.eq(below)
            ]  # fmt: skip
        return m


class WordCounter(wiring.Component):
    """Issues one word per cycle from the cycle after `start` on, and says where it lies.

    A frame is one image of one plane: words / (planes * images) positions. The instruction gives
    words, so a serial divider finds the positions while the first words are issued; frames of fewer
    than FRAME_WORDS words would end before that, and wait FRAME_DIVIDE_CYCLES (`timing.frames`).

    In: start, with words (at least 1), planes and images. Out: word, the one issued now.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "start": In(1), "words": In(WORD_BITS), "planes": In(PLANE_BITS),
                "images": In(IMAGE_BITS), "word": Out(WORD),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Divider and nested counters."""
        m = Module()
        m.submodules.divider = divider = FrameDivider()
        active, single, short = Signal(), Signal(), Signal()
        left, words, position = Signal(WORD_BITS), Signal(WORD_BITS), Signal(WORD_BITS)
        images, image, plane = Signal(IMAGE_BITS), Signal(IMAGE_BITS), Signal(PLANE_BITS)
        frames, following = Signal(FRAME_BITS), Signal(FRAME_BITS)
        valid, final, last, plane_end = Signal(), Signal(), Signal(), Signal()
        known = divider.known
        m.d.comb += [
            following.eq(self.planes * self.images),
            divider.start.eq(self.start), divider.words.eq(self.words),
            divider.frames.eq(Mux(self.start, following, frames)),
            single.eq(frames == 1),
            short.eq(words < frames * FRAME_WORDS),
            valid.eq(active & (single | known | ~short)),
            final.eq(left == 1),
            last.eq(Mux(single, final, known & (position + 1 == divider.quotient))),
            plane_end.eq(last & (image == 1)),
        ]  # fmt: skip
        with m.If(valid):
            m.d.comb += [
                self.word.valid.eq(1), self.word.final.eq(final), self.word.first.eq(position == 0),
                self.word.last.eq(last), self.word.plane_end.eq(plane_end),
                self.word.last_plane.eq(plane == 1),
            ]  # fmt: skip
        with m.If(self.start):
            m.d.sync += [
                active.eq(1), left.eq(self.words), words.eq(self.words), position.eq(0),
                frames.eq(following), images.eq(self.images),
                image.eq(self.images), plane.eq(self.planes),
            ]  # fmt: skip
        with m.Elif(valid):
            m.d.sync += [left.eq(left - 1), position.eq(Mux(last, 0, position + 1))]
            with m.If(last):
                m.d.sync += image.eq(Mux(image == 1, images, image - 1))
            with m.If(plane_end):
                m.d.sync += plane.eq(plane - 1)
            with m.If(final):
                m.d.sync += active.eq(0)
        return m
