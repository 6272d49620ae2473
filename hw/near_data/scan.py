"""Scan: takes compressed areas apart ahead of their words' turn, and counts their outliers."""

from __future__ import annotations

from amaranth import Array, Cat, Elaboratable, Module, Mux, Signal

from signmask.hw.near_data import shape as s
from signmask.hw.near_data.frames import FrameRing
from signmask.hw.near_data.job import Job
from signmask.hw.near_data.lanes import ones, unpack
from signmask.hw.near_data.read_buffer import ReadBuffer
from signmask.hw.near_data.shape import Shape
from signmask.hw.scratchpad import Scratchpad
from signmask.hw.word_queue import WordQueue


class DeltaMemory:
    """Scanned words of one compressed stream, by slot and word of the frame: bitmap, inliers and
    number of outliers."""

    def __init__(self, name: str, shape: Shape, bits: int) -> None:
        self.lanes, self.bits = shape.n, bits
        self.count_bits = shape.n.bit_length()
        self.width = shape.n * (1 + bits) + self.count_bits
        self.memory = Scratchpad(name, s.RING * shape.words, self.width, 1)
        self.source = self.memory.read_port()
        self.word_bits = shape.words.bit_length() - 1


class Scan(Elaboratable):
    """Reads the areas of dy and, in a closed loop, of corrections, a word of both per cycle, into
    their `memories`. `arrived`: the areas of a further frame are complete. `counts` of a frame's
    outliers are valid when all its words are scanned, in order of frames.
    """

    def __init__(self, shape: Shape, job: Job, ring: FrameRing) -> None:
        self.shape, self.job, self.ring = shape, job, ring
        self.clear, self.arrived = Signal(), Signal()
        self.memories = [
            DeltaMemory("delta_words", shape, s.DELTA_BITS),
            DeltaMemory("correction_words", shape, s.CORRECTION_BITS),
        ]
        self.count_bits = (shape.n * shape.words).bit_length()
        self.counts_valid, self.counts_take = Signal(), Signal()
        self.counts = [Signal(self.count_bits, name=f"count_{i}") for i in range(2)]
        self.read, self.slot, self.first = Signal(), Signal(range(s.RING)), Signal()
        self.chunks = [
            Signal(8 * shape.packed(1 + s.DELTA_BITS), name="delta_area"),
            Signal(8 * shape.packed(1 + s.CORRECTION_BITS), name="correction_area"),
        ]

    def elaborate(self, platform: object) -> Module:
        """Word counter, and three stages: two of the buffers, one that takes words apart."""
        m = Module()
        ready, left = Signal(range(s.RING + 1)), Signal(self.shape.words.bit_length())
        slot, word = Signal(range(s.RING)), Signal(range(max(2, self.shape.words)))
        load = Signal()
        m.d.comb += [
            load.eq((left <= 1) & ready.any()),
            self.read.eq(left.any()), self.first.eq(word == 0),
        ]  # fmt: skip
        with m.If(self.read):
            m.d.sync += [left.eq(left - 1), word.eq(word + 1)]
        with m.If(load):
            m.d.sync += [
                left.eq(Array(self.ring.words)[slot]), slot.eq(slot + 1), self.slot.eq(slot),
                word.eq(0),
            ]  # fmt: skip
        with m.If(self.arrived & ~load):
            m.d.sync += ready.eq(ready + 1)
        with m.Elif(load & ~self.arrived):
            m.d.sync += ready.eq(ready - 1)
        with m.If(self.clear):
            m.d.sync += [ready.eq(0), left.eq(0), slot.eq(0), word.eq(0)]
        place = Cat(word[: self.memories[0].word_bits], self.slot)
        stages = [Cat(self.read, self.first, left == 1, place)]
        for i in range(ReadBuffer.LATENCY + 1):
            later = Signal(len(stages[0]), name=f"stage_{i}")
            m.d.sync += later.eq(stages[-1])
            stages.append(later)
        taken, final = stages[ReadBuffer.LATENCY], stages[-1]
        bits = [
            Array(self.job.descriptor.part("dy_bits"))[Array(self.ring.part)[taken[-3:]]],
            self.job.descriptor.field["correction_bits"],
        ]
        m.submodules.queue = queue = WordQueue(2 * self.count_bits, s.RING)
        totals = []
        for i, memory in enumerate(self.memories):
            n, chunk = memory.lanes, self.chunks[i]
            inliers = unpack(
                m, f"inlier_{i}", chunk[n:], bits[i], n, range(1, memory.bits + 1), True
            )
            entry, total, sum_ = (
                Signal(memory.width, name=f"entry_{i}"), Signal(self.count_bits, name=f"total_{i}"),
                Signal(self.count_bits, name=f"sum_{i}"),
            )  # fmt: skip
            used = self.job.codes | self.job.stream if i == 0 else self.job.closed & self.job.codes
            with m.If(taken[0] & used):
                m.d.sync += entry.eq(Cat(chunk[:n], Cat(inliers), ones(chunk[:n])))
            with m.If(self.clear):
                m.d.sync += entry.eq(0)
            m.d.comb += sum_.eq(Mux(final[1], 0, total) + entry[n * (1 + memory.bits) :])
            with m.If(final[0]):
                m.d.sync += total.eq(sum_)
            port = memory.memory.write_port()
            m.submodules[f"memory_{i}"] = memory.memory
            m.d.comb += [
                port.en.eq(final[0] & used), port.addr.eq(final[3:]), port.data.eq(entry),
                port.lanes.eq(1),
                self.counts[i].eq(queue.head.payload.word_select(i, self.count_bits)),
            ]  # fmt: skip
            totals.append(sum_)
        m.d.comb += [
            queue.clear.eq(self.clear), queue.enter.payload.eq(Cat(totals)),
            queue.enter.valid.eq(final[0] & final[2]),
            self.counts_valid.eq(queue.head.valid), queue.head.ready.eq(self.counts_take),
        ]  # fmt: skip
        return m
