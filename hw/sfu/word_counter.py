"""Walk over the words of an instruction: planes of images of positions."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.spec.timing import FRAME_DIVIDE_CYCLES, FRAME_WORDS

WORD_BITS, PLANE_BITS, IMAGE_BITS = 18, 8, 6
FRAME_BITS = PLANE_BITS + IMAGE_BITS


# Where an issued word lies; all zero without one. final: last of the instruction; first, last: of
# its frame; plane_end: last of its plane; last_plane: in the last plane.
WORD = data.StructLayout(
    dict.fromkeys(("valid", "final", "first", "last", "plane_end", "last_plane"), 1)
)
Word = data.View


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
        """Divider of two quotient bits per cycle, and the nested counters."""
        m = Module()
        active, known, single, short = Signal(), Signal(), Signal(), Signal()
        left, words, position = Signal(WORD_BITS), Signal(WORD_BITS), Signal(WORD_BITS)
        images, image, plane = Signal(IMAGE_BITS), Signal(IMAGE_BITS), Signal(PLANE_BITS)
        frames = Signal(FRAME_BITS)
        positions = self._divide(m, frames, known)
        valid, final, last, plane_end = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            single.eq(frames == 1),
            short.eq(words < frames * FRAME_WORDS),
            valid.eq(active & (single | known | ~short)),
            final.eq(left == 1),
            last.eq(Mux(single, final, known & (position + 1 == positions))),
            plane_end.eq(last & (image == 1)),
        ]
        with m.If(valid):
            m.d.comb += [
                self.word.valid.eq(1), self.word.final.eq(final), self.word.first.eq(position == 0),
                self.word.last.eq(last), self.word.plane_end.eq(plane_end),
                self.word.last_plane.eq(plane == 1),
            ]  # fmt: skip
        with m.If(self.start):
            m.d.sync += [
                active.eq(1), left.eq(self.words), words.eq(self.words), position.eq(0),
                frames.eq(self.planes * self.images), images.eq(self.images),
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

    def _divide(self, m: Module, frames: Signal, known: Signal) -> Signal:
        """words / frames, in the cycles of `known`."""
        quotient = Signal(WORD_BITS)  # the dividend moves out at the top
        rest = Signal(FRAME_BITS + 2)
        count = Signal(range(FRAME_DIVIDE_CYCLES + 1))
        trial = Signal(FRAME_BITS + 2)
        m.d.comb += [known.eq(count == 0), trial.eq(rest.shift_left(2) | quotient[-2:])]
        with m.If(self.start):
            m.d.sync += [quotient.eq(self.words), rest.eq(0), count.eq(FRAME_DIVIDE_CYCLES)]
        with m.Elif(~known):
            m.d.sync += count.eq(count - 1)
            digit, below = Signal(2), Signal(FRAME_BITS + 2)
            for k in range(4):
                with m.If(trial >= k * frames):
                    m.d.comb += [digit.eq(k), below.eq(trial - k * frames)]
            m.d.sync += [quotient.eq(quotient.shift_left(2) | digit), rest.eq(below)]
        return quotient
