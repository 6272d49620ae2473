"""Frames: runs of words of one plane that are fetched, computed and written together."""

from __future__ import annotations

from amaranth import Array, Elaboratable, Module, Mux, Signal

from signmask.hw.near_data import shape as s
from signmask.hw.near_data.job import Job
from signmask.hw.near_data.shape import Shape
from signmask.hw.spec.isa import MAX_PARTS


class FrameWalker(Elaboratable):
    """The frame to be fetched next: its words and its place among planes, parts and chunks.

    `start` goes to the first frame, `advance` to the next.
    """

    def __init__(self, shape: Shape, job: Job) -> None:
        self.shape, self.job = shape, job
        self.start, self.advance = Signal(), Signal()
        self.words = Signal(range(shape.words + 1))
        self.part = Signal(range(MAX_PARTS))
        self.first, self.part_first, self.chunk_first, self.plane_first = (
            Signal(name=name) for name in ("first", "part_first", "chunk_first", "plane_first")
        )
        self.plane_last, self.last = Signal(), Signal()

    def elaborate(self, platform: object) -> Module:
        """Counters of words, planes and chunk words that are left."""
        m = Module()
        job, field = self.job, self.job.descriptor.field
        planes, chunks = job.descriptor.part("planes"), job.descriptor.part("dy_chunk")
        words_left, planes_left = Signal(24), Signal(8)
        chunk_left, chunk = Signal(24), Signal(24)
        part_last, chunk_last = Signal(), Signal()
        following = (self.part + 1)[: len(self.part)]
        m.d.comb += [
            self.plane_last.eq(words_left <= self.shape.words),
            self.words.eq(Mux(self.plane_last, words_left, self.shape.words)),
            part_last.eq(self.plane_last & (planes_left == 1)),
            self.last.eq(part_last & (self.part == field["parts"] - 1)),
            chunk.eq(Array(chunks)[self.part]),
            chunk_last.eq(part_last | chunk.any() & (chunk_left == self.words)),
        ]
        with m.If(self.advance):
            m.d.sync += [
                self.first.eq(0), self.plane_first.eq(self.plane_last),
                self.part_first.eq(part_last), self.chunk_first.eq(chunk_last),
                words_left.eq(words_left - self.words),
                chunk_left.eq(Mux(chunk_last, chunk, chunk_left - self.words)),
            ]  # fmt: skip
            with m.If(self.plane_last):
                m.d.sync += [words_left.eq(job.plane_words), planes_left.eq(planes_left - 1)]
            with m.If(part_last):
                m.d.sync += [
                    self.part.eq(following), planes_left.eq(Array(planes)[following]),
                    chunk_left.eq(Array(chunks)[following]),
                ]  # fmt: skip
        with m.If(self.start):
            m.d.sync += [
                self.first.eq(1), self.plane_first.eq(1), self.part_first.eq(1),
                self.chunk_first.eq(1), words_left.eq(job.plane_words), self.part.eq(0),
                planes_left.eq(planes[0]), chunk_left.eq(chunks[0]),
            ]  # fmt: skip
        return m


class FrameRing:
    """Registers of the frames under way, one Array entry per slot.

    `words`, `part`, and the walker's flags; for each read stream `restart` and `skip`, as in
    ReadBuffer, of the frame's first read.
    """

    FLAGS = ("first", "part_first", "chunk_first", "plane_first", "plane_last", "last")

    def __init__(self, shape: Shape) -> None:
        def array(name: str, width: int) -> Array:
            return Array(Signal(width, name=f"{name}_{slot}") for slot in range(s.RING))

        self.words = array("ring_words", shape.words.bit_length())
        self.part = array("ring_part", 2)
        self.flags = {name: array(f"ring_{name}", 1) for name in self.FLAGS}
        streams = range(s.CORRECTION_LIST + 1)
        self.restart = [array(f"ring_restart_{i}", 1) for i in streams]
        self.skip = [array(f"ring_skip_{i}", shape.beat_bits) for i in streams]

    def store(self, m: Module, slot: Signal, walker: FrameWalker) -> None:
        """Keep the walker's frame in `slot`."""
        m.d.sync += [self.words[slot].eq(walker.words), self.part[slot].eq(walker.part)]
        m.d.sync += [self.flags[name][slot].eq(getattr(walker, name)) for name in self.FLAGS]
