"""Normalisation unit: group statistics to the constants A and B of every channel."""

from __future__ import annotations

from amaranth import Array, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.channel_walk import CHANNEL_BITS, ChannelWalk
from signmask.hw.moments import (
    COUNT_BITS,
    EPSILON_BITS,
    MEAN_BITS,
    RATIO_BITS,
    SCALED_BITS,
    SCALED_SPLIT,
    SHIFT_BITS,
    SQUARES_BITS,
    TOTAL_BITS,
    GroupMoments,
    TrendMove,
    TrendRatio,
    delayed,
)
from signmask.hw.ports import ReadPort, WritePort, address_bits
from signmask.hw.rounding import (
    SPLIT,
    join_products,
    lanes_of,
    partial_products,
    saturate,
    shift_round,
)
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import MAX_PARTS
from signmask.hw.spec.numerics import GAIN_BITS

ENTRY_BITS = 48  # of a parameter entry
GAIN_ENTRY_BITS = 32  # of a layer's gain
IMAGE_BITS = 8
MEAN_SHIFT_BITS = 7
TREND_GROUPS = 64  # most groups of a trend normalisation
# Moments wait between the walk over sums and the walk over channels. Both walks go at one pace, so
# few do: the second one starts with the first group's moments, and a group can be late by no more
# than the bubbles of MAX_PARTS planes and the stages that read the moments.
WAITING = 16
EMIT_STAGES = 11


class NormalisationUnit(wiring.Component):
    """Constants A, B of `numerics.channel_constants` for all channels of up to four parts.

    `start` (one cycle, while not `busy`) begins a run, `done` pulses in its last cycle d, by which
    all writes have been presented: d + 1 - s = `timing.normalisation(...)`. `busy` is high from
    s + 1 to d. All other inputs are held from start to done.

    Ports: word addresses of a memory of `depth` parameter words (n signed 48-bit entries).
    Reads (part i, plane q of the part, plane p of the concatenation, image m):
      sums_i + 2*(q*images + m): sums, and squares in the next word;
      gain + p, offset + p;
      with `trend`: mean_last, mean_now, inverse_now, sigma_last, each ceil(groups / n) words: entry
      g % n of word g // n belongs to group g (at most TREND_GROUPS groups).
    Writes: A to output + 2*(p*images + m) and B to the next word; with `gain_only`: A alone, to
    output + p*images + m. Entries of padding channels become 0. A part has ceil(channels / n)
    planes.

    Legal runs: images, parts, channels_i, groups, count, epsilon >= 1; groups divides the channels;
    the ranges that `sim.normalisation` checks.
    """

    def __init__(self, config: HardwareConfig, depth: int) -> None:
        self.config, self.depth = config, depth
        n, address = config.group, address_bits(depth)
        self.address_bits = address
        width = n * ENTRY_BITS
        members: dict[str, wiring.Member] = {
            "start": In(1), "busy": Out(1), "done": Out(1),
            "images": In(IMAGE_BITS), "parts": In(3), "groups": In(CHANNEL_BITS),
            "count": In(COUNT_BITS), "epsilon": In(EPSILON_BITS), "gain_shift": In(6),
            "mean_shift": In(signed(MEAN_SHIFT_BITS)), "trend": In(1), "gain_only": In(1),
        }  # fmt: skip
        for part in range(MAX_PARTS):
            members |= {f"channels_{part}": In(CHANNEL_BITS), f"sums_{part}": In(address)}
        for table in "gain offset output mean_last mean_now inverse_now sigma_last".split():
            members[table] = In(address)
        for port in range(3):
            members[f"read_{port}"] = Out(ReadPort(depth, width))
        for port in range(2):
            members[f"write_{port}"] = Out(WritePort(depth, width, n))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """Trend tables, then two walks: one sums groups, one, behind it, emits channels."""
        m = Module()
        shape = data.StructLayout(
            {"mean": signed(MEAN_BITS), "r": signed(SCALED_BITS), "h": signed(SHIFT_BITS)}
        )
        m.submodules.waiting = waiting = memory.Memory(shape=shape, depth=WAITING, init=[])
        write, read = waiting.write_port(), waiting.read_port(domain="comb")
        tables = self._tables(m)
        begin = Signal()
        statistics, emission = ChannelWalk(self.config), ChannelWalk(self.config)
        m.submodules.statistics, m.submodules.emission = statistics, emission
        for walk in (statistics, emission):
            for name in ("images", "parts", "groups", *(f"channels_{i}" for i in range(MAX_PARTS))):
                m.d.comb += getattr(walk, name).eq(getattr(self, name))
        m.d.comb += begin.eq(Mux(self.trend, tables, self.start))
        m.d.comb += statistics.start.eq(begin)
        self._statistics(m, statistics, write)
        emitting = Signal()
        m.d.comb += emission.start.eq(write.en & ~emitting)
        with m.If(self.start):
            m.d.sync += [self.busy.eq(1), write.addr.eq(0), read.addr.eq(0), emitting.eq(0)]
        with m.Elif(self.done):
            m.d.sync += self.busy.eq(0)
        with m.If(write.en):
            m.d.sync += [emitting.eq(1), write.addr.eq(write.addr + 1)]
        self._emission(m, emission, read)
        return m

    def _tables(self, m: Module) -> Signal:
        """Ratios and changes of all groups to `self.trends`; returns the pulse of the last one.

        A word of groups takes two cycles of reads and one cycle for each of its groups.
        """
        n = self.config.group
        self.trends = trends = memory.Memory(
            shape=data.StructLayout({"ratio": signed(RATIO_BITS), "change": signed(MEAN_BITS)}),
            depth=TREND_GROUPS, init=[],
        )  # fmt: skip
        m.submodules.trends = trends
        m.submodules.ratio = ratio = TrendRatio()
        word, left = Signal(range(TREND_GROUPS)), Signal(CHANNEL_BITS)
        lane = Signal(range(n))
        last = Signal()
        inverse = Signal(n * ENTRY_BITS)
        address = self.table_read = Signal(self.address_bits)
        self.table_first, self.table_second, self.table_word = Signal(), Signal(), word
        with m.FSM(name="tables"):
            with m.State("IDLE"):
                m.d.sync += [word.eq(0), left.eq(self.groups)]
                with m.If(self.start & self.trend):
                    m.next = "READ"
            with m.State("READ"):
                m.d.comb += [self.table_first.eq(1), address.eq(self.inverse_now + word)]
                m.next = "READ_SIGMA"
            with m.State("READ_SIGMA"):
                m.d.comb += [self.table_second.eq(1), address.eq(self.sigma_last + word)]
                m.d.sync += [inverse.eq(self.read_2.data), lane.eq(0)]
                m.next = "GROUPS"
            with m.State("GROUPS"):
                m.d.comb += ratio.valid.eq(1)
                m.d.sync += [lane.eq(lane + 1), left.eq(left - 1)]
                with m.If(left == 1):
                    m.d.comb += last.eq(1)
                    m.next = "IDLE"
                with m.Elif(lane == n - 1):
                    m.d.sync += word.eq(word + 1)
                    m.next = "READ"
        for name, entries in (
            ("mean_last", self.read_0.data), ("mean_now", self.read_1.data),
            ("inverse_now", inverse), ("sigma_last", self.read_2.data),
        ):  # fmt: skip
            m.d.comb += getattr(ratio, name).eq(Array(lanes_of(entries, n))[lane])
        port = trends.write_port()
        m.d.comb += [
            port.en.eq(ratio.valid_out), port.data.ratio.eq(ratio.ratio),
            port.data.change.eq(ratio.change),
        ]  # fmt: skip
        with m.If(self.start):
            m.d.sync += port.addr.eq(0)
        with m.Elif(ratio.valid_out):
            m.d.sync += port.addr.eq(port.addr + 1)
        return last

    def _statistics(self, m: Module, walk: ChannelWalk, write: memory.WritePort) -> None:
        """Sums of each group through `GroupMoments`, and with a trend `TrendMove`, to `write`."""
        n, address = self.config.group, self.address_bits
        offset, image = Signal(address), Signal(IMAGE_BITS)
        sums = Array(getattr(self, f"sums_{i}") for i in range(MAX_PARTS))
        word = Signal(address)
        m.d.comb += word.eq(sums[walk.part] + offset)
        for i, port in enumerate((self.read_0, self.read_1)):
            table = (self.mean_last, self.mean_now)[i] + self.table_word
            m.d.comb += [
                port.en.eq((walk.active & walk.plane_first) | self.table_first),
                port.addr.eq(Mux(self.table_first, table, word + i)),
            ]
        with m.If(self.start):
            m.d.sync += [image.eq(0), offset.eq(0)]
        with m.Elif(walk.active & walk.plane_last):
            m.d.sync += offset.eq(offset + Cat(0, self.images))
            with m.If(walk.image_last):
                m.d.sync += [offset.eq(Cat(0, (image + 1)[:IMAGE_BITS])), image.eq(image + 1)]
            with m.Elif(walk.part_last):
                m.d.sync += offset.eq(Cat(0, image))

        channel, last = [Signal(name=f"channel_{i}") for i in (1, 2)], [
            Signal(name=f"group_last_{i}") for i in (1, 2, 3)
        ]  # fmt: skip
        lane, first = Signal.like(walk.lane), Signal()
        total, total_sum = Signal(signed(TOTAL_BITS)), Signal(signed(TOTAL_BITS))
        squares, squares_sum = Signal(ENTRY_BITS), Signal(SQUARES_BITS)
        m.d.sync += [
            channel[0].eq(walk.channel), channel[1].eq(channel[0]),
            last[0].eq(walk.channel & walk.group_last), last[1].eq(last[0]), last[2].eq(last[1]),
        ]  # fmt: skip
        with m.If(walk.channel):
            m.d.sync += lane.eq(walk.lane)
        with m.If(channel[0]):
            m.d.sync += [
                total.eq(Array(lanes_of(self.read_0.data, n))[lane]),
                squares.eq(Array(lanes_of(self.read_1.data, n))[lane]),
            ]
        with m.If(self.start):
            m.d.sync += first.eq(1)
        with m.If(channel[1]):
            m.d.sync += [
                total_sum.eq(Mux(first, 0, total_sum) + total),
                squares_sum.eq(Mux(first, 0, squares_sum) + squares),
                first.eq(last[1]),
            ]

        m.submodules.moments = moments = GroupMoments()
        m.submodules.trend_move = move = TrendMove()
        m.d.comb += [
            moments.valid.eq(last[2]), moments.total.eq(total_sum), moments.squares.eq(squares_sum),
            moments.count.eq(self.count), moments.epsilon.eq(self.epsilon),
            move.valid.eq(moments.valid_out & self.trend),
            move.mean.eq(moments.mean), move.r.eq(moments.r), move.h.eq(moments.h),
        ]  # fmt: skip
        with m.If(self.trend):
            m.d.comb += [
                write.en.eq(move.valid_out), write.data.mean.eq(move.mean_out),
                write.data.r.eq(move.r_out), write.data.h.eq(move.h_out),
            ]  # fmt: skip
        with m.Else():
            m.d.comb += [
                write.en.eq(moments.valid_out), write.data.mean.eq(moments.mean),
                write.data.r.eq(moments.r), write.data.h.eq(moments.h),
            ]  # fmt: skip
        group = Signal(CHANNEL_BITS)
        read = self.trends.read_port()
        m.d.comb += [
            read.addr.eq(group), read.en.eq(move.valid), move.ratio.eq(read.data.ratio),
            move.change.eq(read.data.change),
        ]  # fmt: skip
        with m.If(self.start):
            m.d.sync += group.eq(0)
        with m.Elif(move.valid):
            m.d.sync += group.eq(Mux(group == self.groups - 1, 0, group + 1))

    def _emission(self, m: Module, walk: ChannelWalk, read: memory.ReadPort) -> None:
        """A and B of each channel: stage 0 is the walk, stage EMIT_STAGES the write."""
        n, table_address = self.config.group, Signal(self.address_bits)
        flags = data.StructLayout(
            {
                "channel": 1, "lane": len(walk.lane), "valid_lanes": len(walk.valid_lanes),
                "plane_first": 1, "plane_last": 1, "image_last": 1, "group_last": 1, "run_last": 1,
            }
        )  # fmt: skip
        active = [Signal(name=f"active_{i}") for i in range(EMIT_STAGES + 1)]
        at = [Signal(flags, name=f"at_{i}") for i in range(EMIT_STAGES + 1)]
        m.d.comb += active[0].eq(walk.active)
        for name in flags.members:
            m.d.comb += at[0][name].eq(getattr(walk, name))
        for i in range(EMIT_STAGES):
            m.d.sync += active[i + 1].eq(active[i])
            with m.If(active[i]):
                m.d.sync += at[i + 1].eq(at[i])

        # Offsets are read before gains: the plane lasts two cycles at least.
        plane = Signal(self.address_bits)
        read_offset, read_gain = (Signal(name=name) for name in ("read_offset", "read_gain"))
        plane_1 = Signal.like(plane)
        m.d.comb += [
            read_offset.eq(active[0] & at[0].plane_first),
            read_gain.eq(active[1] & at[1].plane_first),
            self.read_2.en.eq(read_offset | read_gain | self.table_first | self.table_second),
            table_address.eq(Mux(read_gain, self.gain + plane_1, self.offset + plane)),
            self.read_2.addr.eq(
                Mux(self.table_first | self.table_second, self.table_read, table_address)
            ),
        ]
        with m.If(self.start):
            m.d.sync += plane.eq(0)
        with m.Elif(active[0] & at[0].plane_last):
            m.d.sync += plane.eq(Mux(at[0].image_last, 0, plane + 1))
        with m.If(read_offset):
            m.d.sync += plane_1.eq(plane)
        offsets, gains = Signal(n * ENTRY_BITS), Signal(n * ENTRY_BITS)
        with m.If(read_gain):
            m.d.sync += offsets.eq(self.read_2.data)
        with m.If(active[2] & at[2].plane_first):
            m.d.sync += gains.eq(self.read_2.data)

        offset, gain = Signal(signed(ENTRY_BITS)), Signal(signed(GAIN_ENTRY_BITS))
        with m.If(active[2]):
            m.d.sync += offset.eq(Array(lanes_of(offsets, n))[at[2].lane])
        moments = Signal(read.data.shape())
        with m.If(active[3]):
            m.d.sync += [
                gain.eq(Array(lanes_of(gains, n))[at[3].lane]),
                moments.eq(read.data),
            ]
            with m.If(at[3].channel & at[3].group_last):
                m.d.sync += read.addr.eq(read.addr + 1)
        a, b = self._constants(m, active, gain, delayed(m, active[3:10], offset, "offset"), moments)
        self._write(m, active[-1], at[-1], a, b)

    def _constants(
        self, m: Module, active: list[Signal], gain: Value, offset: Value, moments: data.View
    ) -> tuple[Value, Value]:
        """A and B in stage EMIT_STAGES; gain and moments come in stage 4, offset in stage 10."""
        low, high, scaled = (Signal(signed(64), name=f"scaled_{i}") for i in range(3))
        shift, shift_5 = Signal(signed(8)), Signal(signed(8))
        left = Signal(5)
        first, second = partial_products(gain, moments.r, SCALED_SPLIT)
        with m.If(active[4]):
            m.d.sync += [
                low.eq(first), high.eq(second), shift_5.eq(self.gain_shift + moments.h)
            ]  # fmt: skip
        with m.If(active[5]):
            m.d.sync += [scaled.eq(join_products(low, high, SCALED_SPLIT)), shift.eq(shift_5)]
        a = Signal(signed(GAIN_BITS))
        m.d.comb += left.eq(-shift)
        # What exceeds A is clamped to an edge, which exceeds A after any shift to the left.
        grown = saturate(scaled, GAIN_BITS) << left
        rounded = shift_round(scaled, shift[:-1])
        with m.If(active[6]):
            m.d.sync += a.eq(
                Mux(shift < 0, saturate(grown, GAIN_BITS), saturate(rounded, GAIN_BITS))
            )
        mean = delayed(m, active[4:7], moments.mean, "mean")
        low, high, exact = (Signal(signed(64), name=f"centred_{i}") for i in range(3))
        first, second = partial_products(mean, a, SPLIT)
        with m.If(active[7]):
            m.d.sync += [low.eq(first), high.eq(second)]
        with m.If(active[8]):
            m.d.sync += exact.eq(join_products(low, high, SPLIT))
        centre, b = Signal(signed(ENTRY_BITS)), Signal(signed(ENTRY_BITS))
        amount = Signal(MEAN_SHIFT_BITS)
        down = self.mean_shift[-1]
        m.d.comb += amount.eq(Mux(down, -self.mean_shift, self.mean_shift))
        with m.If(active[9]):
            m.d.sync += centre.eq(
                Mux(down, (exact << amount[:-1])[:64].as_signed(), shift_round(exact, amount))
            )
        with m.If(active[10]):
            m.d.sync += b.eq(offset - centre)
        return delayed(m, active[7:11], a, "a"), b

    def _write(self, m: Module, active: Value, at: data.View, a: Value, b: Value) -> None:
        """One lane per cycle; the padding lanes with the first of their plane."""
        n = self.config.group
        word, image = Signal(self.address_bits), Signal(IMAGE_BITS)
        address = Signal(self.address_bits)
        m.d.comb += address.eq(self.output + Mux(self.gain_only, word, Cat(0, word)))
        own = Signal(n)
        lanes = Signal(n)
        m.d.comb += own.eq(Cat(at.lane == i for i in range(n)))
        m.d.comb += lanes.eq(
            own | Cat(at.plane_first & (at.valid_lanes <= i) for i in range(n))
        )  # fmt: skip
        for i, (port, value) in enumerate(((self.write_0, a), (self.write_1, b))):
            entry = Signal(ENTRY_BITS, name=f"entry_{i}")
            enable = active & at.channel
            m.d.comb += [
                entry.eq(value),
                port.en.eq(enable & ~self.gain_only if i else enable),
                port.addr.eq(address + i),
                port.lanes.eq(lanes),
                port.data.eq(Cat(entry & bit.replicate(ENTRY_BITS) for bit in own)),
            ]
        with m.If(self.start):
            m.d.sync += [word.eq(0), image.eq(0)]
        with m.Elif(active & at.plane_last):
            m.d.sync += word.eq(word + self.images)
            with m.If(at.image_last):
                m.d.sync += [word.eq((image + 1)[:IMAGE_BITS]), image.eq(image + 1)]
        m.d.comb += self.done.eq(active & at.run_last)
