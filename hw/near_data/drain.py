"""Requests of the write channel: the beats of finished frames, stream by stream."""

from __future__ import annotations

from amaranth import Array, Cat, Const, Elaboratable, Module, Mux, Signal, Value

from signmask.hw.axi import ADDRESS_BITS
from signmask.hw.near_data import shape as s
from signmask.hw.near_data.job import Job
from signmask.hw.near_data.shape import Shape
from signmask.hw.near_data.write_buffer import WriteBuffer
from signmask.hw.spec.engine_timing import WRITE_SLOTS

OUTSTANDING_BITS = 24


class Drain(Elaboratable):
    """Writes frame after frame what the `buffers` hold of it, the streams of `job.outs` in order,
    a stream one cycle per beat and at least one; each beat is a burst. `start`: addresses begin
    anew; `finished`: a further frame is in the buffers; `drained`: a frame has left them. `idle`:
    all that was taken from the buffers is acknowledged.
    """

    def __init__(self, shape: Shape, job: Job, buffers: list[WriteBuffer]) -> None:
        self.shape, self.job, self.buffers = shape, job, buffers
        self.clear, self.start = Signal(), Signal()
        self.finished, self.drained, self.idle = Signal(), Signal(), Signal()
        self.aw_valid, self.aw_ready = Signal(), Signal()
        self.w_valid, self.w_ready = Signal(), Signal()
        self.address, self.data = Signal(ADDRESS_BITS), Signal(8 * shape.beat)
        self.strobes, self.acknowledged = Signal(shape.beat), Signal()

    def elaborate(self, platform: object) -> Module:
        """Item under way, output register, outstanding responses."""
        m = Module()
        low_bits, buffers = self.shape.beat_bits, self.buffers
        waiting, slot = Signal(range(WRITE_SLOTS + 1)), Signal(range(WRITE_SLOTS))
        pending, fresh = Signal(s.OUTS), Signal(init=1)
        choice, stream = Signal(range(s.OUTS)), Signal(range(s.OUTS))
        rest = Signal(s.OUTS)
        left, real, ends = Signal(16), Signal(), Signal()
        final_low, flush = Signal(low_bits), Signal()
        addresses = Array(Signal(ADDRESS_BITS, name=f"address_{i}") for i in range(s.OUTS))
        list_base = Signal(ADDRESS_BITS)
        valid, aw_sent, w_sent, leaves, free = (
            Signal(name=name) for name in ("valid", "aw_sent", "w_sent", "leaves", "free")
        )
        step, take, load = Signal(), Signal(), Signal()
        candidates = Mux(fresh, self.job.outs, pending)
        m.d.comb += rest.eq(candidates & (candidates - 1)[: s.OUTS])
        for i in reversed(range(s.OUTS)):
            with m.If(candidates[i]):
                m.d.comb += choice.eq(i)
        m.d.comb += [
            leaves.eq(valid & (aw_sent | self.aw_ready) & (w_sent | self.w_ready)),
            free.eq(~valid | leaves), step.eq(left.any() & (~real | free)), take.eq(step & real),
            load.eq(((left == 0) | (left == 1) & step) & (~fresh | waiting.any())),
            self.drained.eq(step & (left == 1) & ends),
            self.aw_valid.eq(valid & ~aw_sent), self.w_valid.eq(valid & ~w_sent),
        ]  # fmt: skip
        with m.If(step):
            m.d.sync += left.eq(left - 1)
        counts = Array(buffer.frame_beats for buffer in buffers)
        with m.If(load):
            m.d.sync += [
                left.eq(Mux(counts[choice].any(), counts[choice], 1)),
                real.eq(counts[choice].any()), stream.eq(choice),
                pending.eq(rest), fresh.eq(~rest.any()), ends.eq(~rest.any()),
                final_low.eq(Array(buffer.frame_low for buffer in buffers)[choice]),
                flush.eq(Array(buffer.frame_flush for buffer in buffers)[choice]),
            ]  # fmt: skip
            with m.If(~rest.any()):
                m.d.sync += slot.eq(slot + 1)
        frame_done = load & ~rest.any()
        with m.If(self.finished & ~frame_done):
            m.d.sync += waiting.eq(waiting + 1)
        with m.Elif(frame_done & ~self.finished):
            m.d.sync += waiting.eq(waiting - 1)
        self._strobes(m, take, left, addresses[stream], flush, final_low)
        place, beats = Signal(range(s.OUTS)), Array(buffer.beat for buffer in buffers)
        with m.If(take):
            m.d.sync += [
                valid.eq(1), aw_sent.eq(0), w_sent.eq(0), place.eq(stream),
                self.address.eq(Cat(Const(0, low_bits), addresses[stream][low_bits:])),
                addresses[stream].eq(
                    Cat(Const(0, low_bits), addresses[stream][low_bits:] + 1)
                ),
            ]  # fmt: skip
        with m.Elif(leaves):
            m.d.sync += [valid.eq(0), aw_sent.eq(0), w_sent.eq(0)]
        with m.Else():
            m.d.sync += [
                aw_sent.eq(aw_sent | self.aw_valid & self.aw_ready),
                w_sent.eq(w_sent | self.w_valid & self.w_ready),
            ]
        # The list of the next plane begins at its own place.
        with m.If(step & (left == 1) & flush & (stream == s.OUT_LIST) & self.job.closed):
            following = list_base + self.job.plane_list_bytes
            m.d.sync += [list_base.eq(following), addresses[s.OUT_LIST].eq(following)]
        for i, buffer in enumerate(buffers):
            m.d.comb += [buffer.query.eq(slot), buffer.take.eq(take & (stream == i))]
        m.d.comb += self.data.eq(beats[place])
        self._responses(m, take, left, valid, waiting)
        with m.If(self.start):
            for i in range(s.OUTS):
                m.d.sync += addresses[i].eq(self.job.goal(i))
            m.d.sync += list_base.eq(self.job.goal(s.OUT_LIST))
        with m.If(self.clear):
            m.d.sync += [waiting.eq(0), slot.eq(0), left.eq(0), fresh.eq(1), valid.eq(0)]
        return m

    def _strobes(
        self, m: Module, take: Value, left: Value, address: Value, flush: Value, final_low: Value
    ) -> None:
        """Which bytes of a beat belong to the stream."""
        beat, low_bits = self.shape.beat, self.shape.beat_bits
        first = Const((1 << beat) - 1, beat) << address[:low_bits]
        partial = flush & (left == 1) & final_low.any()
        final = Cat(*(final_low > i for i in range(beat - 1)), Const(0, 1))
        with m.If(take):
            m.d.sync += self.strobes.eq(first[:beat] & Mux(partial, final, (1 << beat) - 1))

    def _responses(self, m: Module, take: Value, left: Value, valid: Value, waiting: Value) -> None:
        """Beats that are not acknowledged yet."""
        outstanding = Signal(OUTSTANDING_BITS)
        with m.If(take & ~self.acknowledged):
            m.d.sync += outstanding.eq(outstanding + 1)
        with m.Elif(self.acknowledged & ~take):
            m.d.sync += outstanding.eq(outstanding - 1)
        m.d.comb += self.idle.eq(~outstanding.any() & ~left.any() & ~valid & ~waiting.any())
