"""Requests of the read channel: descriptor, tables, then frame by frame what the words need."""

from __future__ import annotations

from amaranth import Array, Cat, Const, Elaboratable, Module, Mux, Signal, Value

from signmask.hw.axi import ADDRESS_BITS
from signmask.hw.near_data import shape as s
from signmask.hw.near_data.descriptor import LINE_BYTES
from signmask.hw.near_data.frames import FrameRing, FrameWalker
from signmask.hw.near_data.job import Job
from signmask.hw.near_data.shape import Shape
from signmask.hw.near_data.table_items import ITEMS, SIZE_BITS, TableItems
from signmask.hw.spec.engine_timing import LOOKAHEAD, READ_SLOTS
from signmask.hw.spec.isa import BOUNDARY_FIELDS, STREAM_FIELDS

BEATS_BITS = 16
IDLE, DESCRIPTOR, TABLE, AREA, LIST = range(5)
STREAMS = s.CORRECTION_LIST + 1


class Tag:
    """What the beats of a request are: stream, number, and what their end means."""

    WIDTH = 4 + BEATS_BITS + 3

    def __init__(self, word: Value) -> None:
        self.stream, self.beats = word[:4], word[4 : 4 + BEATS_BITS]
        self.drop, self.ends_scan, self.ends_frame = word[4 + BEATS_BITS :]


class Fetch(Elaboratable):
    """Requests beats one by one, an item after the other.

    An item is the descriptor, a table, or a stream's part of a frame; it takes a cycle per beat and
    follows its predecessor at once, an item without beats one cycle for a beat that is dropped. The
    lists of a frame follow the areas of the frame LOOKAHEAD - 1 later, as soon as `counts` (of
    outliers: dy, corrections) are there. At most READ_SLOTS frames are between fetch and `freed`.
    `begin` starts with the descriptor at `descriptor_address`; `proceed`, when the job is known,
    the rest. `tables_sent`: no table will follow.
    """

    def __init__(self, shape: Shape, job: Job, ring: FrameRing) -> None:
        self.shape, self.job, self.ring = shape, job, ring
        self.items = TableItems(shape, job)
        self.walker = FrameWalker(shape, job)
        self.clear, self.begin, self.proceed = Signal(), Signal(), Signal()
        self.descriptor_address = Signal(ADDRESS_BITS)
        self.valid, self.ready, self.address = Signal(), Signal(), Signal(ADDRESS_BITS)
        self.tag_valid, self.tag = Signal(), Signal(Tag.WIDTH)
        self.table_valid, self.table_size = Signal(), Signal(SIZE_BITS)
        self.table_skip = Signal(shape.beat_bits)
        count_bits = (shape.n * shape.words).bit_length()
        self.counts_valid, self.counts_take = Signal(), Signal()
        self.counts = [Signal(count_bits, name=f"count_{i}") for i in range(2)]
        self._in_flight = Signal(range(READ_SLOTS + 1))  # frames between fetch and `freed`
        self.freed, self.tables_sent, self.moved = Signal(), Signal(), Signal(32)

    def elaborate(self, platform: object) -> Module:
        """Registers of the item under way, and the choice of the next."""
        m = Module()
        m.submodules.items, m.submodules.walker = self.items, self.walker
        self.group, self.pending = Signal(range(5)), Signal(len(ITEMS))
        self.fresh, self.load = Signal(), Signal()
        self.index, self.final = Signal(range(len(ITEMS))), Signal()
        self.area_slot, self.list_slot = Signal(range(s.RING)), Signal(range(s.RING))
        rest = self.pending & (self.pending - 1)[: len(ITEMS)]
        self.rest = Signal(len(ITEMS))
        m.d.comb += [self.rest.eq(rest), self.final.eq(~rest.any())]
        for i in reversed(range(len(ITEMS))):
            with m.If(self.pending[i]):
                m.d.comb += self.index.eq(i)
        self._item(m)
        self._issue(m)
        self._next_group(m)
        return m

    def _item(self, m: Module) -> None:
        """The item that comes next: its bytes, where they begin, and whether it may go."""
        job, walker, ring, items = self.job, self.walker, self.ring, self.items
        low_bits = self.shape.beat_bits
        index, slot = self.index, self.list_slot
        self.size, self.restart, self.allowed = Signal(SIZE_BITS), Signal(), Signal()
        self.stream, base = Signal(4), Signal(ADDRESS_BITS)
        self.base = base
        bytes_per_word = Signal(8 + self.shape.n.bit_length())
        list_part = ring.part[slot]
        lists_base = [Signal(ADDRESS_BITS, name=f"list_base_{i}") for i in range(2)]
        field = job.descriptor.field
        list_bases: list[Value] = [
            Mux(ring.flags["part_first"][slot], job.address("dy_list", list_part),
                lists_base[0] + job.per_part(job.chunk_bytes, list_part)),
            Mux(ring.flags["first"][slot], field["correction_list"],
                lists_base[1] + job.plane_list_bytes),
        ]  # fmt: skip
        list_restarts = [ring.flags["chunk_first"][slot], ring.flags["plane_first"][slot]]
        wide = job.per_part(job.descriptor.part("y_bytes"), list_part)[2]
        list_sizes: list[Value] = [
            Mux(wide, self.counts[0] << 2, self.counts[0] << 1), self.counts[1] << 1
        ]  # fmt: skip
        m.d.comb += [items.index.eq(index), items.take.eq(self.load & (self.group == TABLE))]
        with m.Switch(self.group):
            with m.Case(DESCRIPTOR):
                stream_kind = job.stream | job.read
                m.d.comb += [
                    base.eq(self.descriptor_address), self.restart.eq(1), self.allowed.eq(1),
                    self.stream.eq(s.TABLES),
                    self.size.eq(Mux(stream_kind, 8 * len(STREAM_FIELDS), 8 * len(BOUNDARY_FIELDS)))
                ]  # fmt: skip
            with m.Case(TABLE):
                m.d.comb += [
                    base.eq(items.address), self.restart.eq(1), self.allowed.eq(1),
                    self.stream.eq(s.TABLES), self.size.eq(items.size),
                ]  # fmt: skip
            with m.Case(AREA):
                m.d.comb += [
                    self.allowed.eq(~self.fresh | (self._in_flight != READ_SLOTS)),
                    self.stream.eq(index),
                    self.size.eq(walker.words * bytes_per_word),
                ]
                with m.Switch(index):
                    for i in s.AREAS:
                        with m.Case(i):
                            m.d.comb += [
                                base.eq(job.base(i, walker.part)),
                                bytes_per_word.eq(job.size(i, walker.part)),
                                self.restart.eq(
                                    walker.part_first if i in (s.DY, s.RAW) else walker.first
                                ),
                            ]
            with m.Case(LIST):
                m.d.comb += [
                    self.allowed.eq(~self.fresh | self.counts_valid),
                    self.stream.eq(index + s.DY_LIST),
                ]
                with m.Switch(index):
                    for i in range(2):
                        with m.Case(i):
                            m.d.comb += [
                                base.eq(list_bases[i]), self.restart.eq(list_restarts[i]),
                                self.size.eq(list_sizes[i]),
                            ]  # fmt: skip
        for i in range(2):
            with m.If(self.load & (self.group == LIST) & (index == i) & self.restart):
                m.d.sync += lists_base[i].eq(base)
        self._beats(m, low_bits)

    def _beats(self, m: Module, low_bits: int) -> None:
        """Beats of the item: those that hold its bytes and were not fetched yet."""
        lows = Array(Signal(low_bits, name=f"low_{i}") for i in range(STREAMS + 1))
        partly = Array(Signal(name=f"partly_{i}") for i in range(STREAMS + 1))
        following = Array(Signal(ADDRESS_BITS, name=f"following_{i}") for i in range(STREAMS + 1))
        low, end = Signal(low_bits), Signal(SIZE_BITS + 1)
        had, present = Signal(), Signal()
        beats, first = Signal(BEATS_BITS), Signal(ADDRESS_BITS)
        m.d.comb += [
            low.eq(Mux(self.restart, self.base[:low_bits], lows[self.stream])),
            had.eq(~self.restart & partly[self.stream] & low.any()),
            present.eq(self.size.any()),
            end.eq(self.size + low),
            beats.eq(Mux(present, end[low_bits:] + end[:low_bits].any() - had, 0)),
            first.eq(
                Mux(self.restart, Cat(Const(0, low_bits), self.base[low_bits:]),
                    following[self.stream])
            ),
        ]  # fmt: skip
        self.beats, self.first = beats, first
        with m.If(self.load):
            m.d.sync += [
                lows[self.stream].eq(end[:low_bits]),
                partly[self.stream].eq(present | partly[self.stream] & ~self.restart),
                following[self.stream].eq(first + Cat(Const(0, low_bits), beats)),
                self.moved.eq(self.moved + self.size),
            ]
        with m.If(self.clear):
            m.d.sync += self.moved.eq(0)
        m.d.comb += [
            self.table_valid.eq(self.load & (self.stream == s.TABLES)),
            self.table_size.eq(self.size), self.table_skip.eq(low),
        ]  # fmt: skip
        for i in range(STREAMS):
            if i == s.NOTHING:
                continue
            slot = self.list_slot if i in (s.DY_LIST, s.CORRECTION_LIST) else self.area_slot
            with m.If(self.load & (self.stream == i)):
                m.d.sync += [
                    self.ring.restart[i][slot].eq(self.restart), self.ring.skip[i][slot].eq(low),
                ]  # fmt: skip

    def _issue(self, m: Module) -> None:
        """Addresses of the item under way, and the tag of the next."""
        shape, beat = self.shape, self.shape.beat
        left, hold, pace = Signal(BEATS_BITS), Signal(8), Signal(8)
        drop = Signal()
        accepted, done = Signal(), Signal()
        paces = {
            "descriptor": max(1, beat // LINE_BYTES), "wide": max(1, beat // (8 * shape.n)),
            "narrow": max(1, beat // (4 * shape.n)),
        }  # fmt: skip
        next_pace = Mux(
            self.group == DESCRIPTOR, paces["descriptor"],
            Mux(self.group == TABLE,
                Mux(self.items.narrow, paces["narrow"], paces["wide"]), 1),
        )  # fmt: skip
        m.d.comb += [
            self.valid.eq(left.any() & ~hold.any()),
            accepted.eq(self.valid & self.ready),
            done.eq((left == 0) & (hold <= 1) | (left == 1) & accepted & (pace == 1)),
            self.load.eq(done & (self.group != IDLE) & self.allowed),
            drop.eq(~self.beats.any()),
        ]
        with m.If(hold.any()):
            m.d.sync += hold.eq(hold - 1)
        with m.If(accepted):
            m.d.sync += [
                left.eq(left - 1), hold.eq(pace - 1), self.address.eq(self.address + beat)
            ]  # fmt: skip
        with m.If(self.load):
            m.d.sync += [
                left.eq(Mux(drop, 1, self.beats)), pace.eq(next_pace),
                self.address.eq(
                    Mux(drop, Cat(Const(0, shape.beat_bits),
                                  self.descriptor_address[shape.beat_bits :]), self.first)
                ),
            ]  # fmt: skip
        has_lists = self.job.lists.any()
        m.d.comb += [
            self.tag_valid.eq(self.load),
            self.tag.eq(
                Cat(
                    self.stream, Mux(drop, 1, self.beats)[:BEATS_BITS], drop,
                    (self.group == AREA) & has_lists & (self.index <= s.CORRECTION)
                    & ~self.rest[: s.CORRECTION + 1].any(),
                    self.final & Mux(self.group == AREA, ~has_lists, self.group == LIST),
                )
            ),
        ]  # fmt: skip

    def _next_group(self, m: Module) -> None:
        """Order of groups: descriptor; tables; areas and lists of frames."""
        job, walker, ring = self.job, self.walker, self.ring
        lead = Signal(range(LOOKAHEAD + 1))
        issued = Signal()
        step = self.load & self.final
        lists, in_flight = job.lists, self._in_flight
        with m.If(self.load):
            m.d.sync += [self.pending.eq(self.rest), self.fresh.eq(0)]

        def to(group: int, pending: Value | int) -> None:
            m.d.sync += [self.group.eq(group), self.pending.eq(pending), self.fresh.eq(1)]

        area_step = step & (self.group == AREA)
        list_step = step & (self.group == LIST)
        m.d.comb += [walker.advance.eq(area_step), walker.start.eq(self.proceed)]
        m.d.comb += self.counts_take.eq(list_step)
        with m.If(area_step):
            m.d.sync += [
                lead.eq(lead + 1), issued.eq(walker.last), self.area_slot.eq(self.area_slot + 1)
            ]  # fmt: skip
        # The scan may need to know the frame before the last of its areas is asked for.
        with m.If(self.load & self.fresh & (self.group == AREA)):
            self.ring.store(m, self.area_slot, walker)
        with m.If(list_step):
            m.d.sync += [lead.eq(lead - 1), self.list_slot.eq(self.list_slot + 1)]
        with m.If(area_step & ~self.freed):
            m.d.sync += in_flight.eq(in_flight + 1)
        with m.Elif(self.freed & ~area_step):
            m.d.sync += in_flight.eq(in_flight - 1)

        areas = Mux(job.body, AREA, IDLE)
        with m.If(self.begin):
            to(DESCRIPTOR, 1)
        with m.Elif(self.proceed):
            tables = self.items.present
            with m.If(tables.any()):
                to(TABLE, tables)
            with m.Else():
                m.d.sync += self.tables_sent.eq(1)
                to(areas, job.areas)
        with m.Elif(step), m.Switch(self.group):
            with m.Case(DESCRIPTOR):
                to(IDLE, 0)
            with m.Case(TABLE):
                m.d.sync += self.tables_sent.eq(1)
                to(areas, job.areas)
            with m.Case(AREA):
                with m.If(lists.any() & (walker.last | (lead == LOOKAHEAD - 1))):
                    to(LIST, lists)
                with m.Elif(walker.last):
                    to(IDLE, 0)
                with m.Else():
                    to(AREA, job.areas)
            with m.Case(LIST):
                with m.If(ring.flags["last"][self.list_slot]):
                    to(IDLE, 0)
                with m.Elif(issued):
                    to(LIST, lists)
                with m.Else():
                    to(AREA, job.areas)
        with m.If(self.clear):
            m.d.sync += [
                self.group.eq(IDLE), lead.eq(0), issued.eq(0), self.area_slot.eq(0),
                self.list_slot.eq(0), in_flight.eq(0), self.tables_sent.eq(0),
            ]  # fmt: skip
