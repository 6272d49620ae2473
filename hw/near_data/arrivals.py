"""Where the beats of the read channel go."""

from __future__ import annotations

from amaranth import Elaboratable, Module, Mux, Signal

from signmask.hw.near_data import shape as s
from signmask.hw.near_data.fetch import BEATS_BITS, Tag
from signmask.hw.word_queue import WordQueue

TAGS = 64  # items that can be under way: those of READ_SLOTS frames, descriptor and tables


class Arrivals(Elaboratable):
    """Matches beats with the tags of their requests, which come in the same order.

    `write[stream]`: the beat of this cycle is one of that stream. `scan` and `frame`: all areas, or
    all streams, of a further frame have come. `hold` stops beats of tables.
    """

    def __init__(self) -> None:
        self.clear, self.tag_valid, self.tag = Signal(), Signal(), Signal(Tag.WIDTH)
        self.valid, self.ready, self.hold = Signal(), Signal(), Signal()
        self.write = Signal(s.TABLES + 1)
        self.scan, self.frame = Signal(), Signal()

    def elaborate(self, platform: object) -> Module:
        """Counts the beats of the tag at the head."""
        m = Module()
        m.submodules.queue = queue = WordQueue(Tag.WIDTH, TAGS)
        tag = Tag(queue.head.payload)
        first, left, now = Signal(init=1), Signal(BEATS_BITS), Signal(BEATS_BITS)
        taken, final = Signal(), Signal()
        m.d.comb += [
            queue.clear.eq(self.clear), queue.enter.valid.eq(self.tag_valid),
            queue.enter.payload.eq(self.tag),
            self.ready.eq(queue.head.valid & ~((tag.stream == s.TABLES) & self.hold)),
            now.eq(Mux(first, tag.beats, left)),
            taken.eq(self.valid & self.ready), final.eq(now == 1),
            queue.head.ready.eq(taken & final),
            self.scan.eq(taken & final & tag.ends_scan),
            self.frame.eq(taken & final & tag.ends_frame),
        ]  # fmt: skip
        with m.If(taken):
            m.d.sync += [first.eq(final), left.eq(now - 1)]
            with m.If(~tag.drop):
                m.d.comb += self.write.bit_select(tag.stream, 1).eq(1)
        with m.If(self.clear):
            m.d.sync += first.eq(1)
        return m
