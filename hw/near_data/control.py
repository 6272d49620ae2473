"""Control of the words in computation: order of frames and words, and what each stage knows."""

from __future__ import annotations

from amaranth import Array, Elaboratable, Module, Mux, Signal, Value

from signmask.hw.near_data import shape as s
from signmask.hw.near_data.frames import FrameRing
from signmask.hw.near_data.job import Job
from signmask.hw.near_data.shape import Shape
from signmask.hw.near_data.table_items import TableItems
from signmask.hw.ports import address_bits
from signmask.hw.spec.engine_timing import FINISH_STAGE, FREE_STAGE, WRITE_SLOTS

WAIT, BODY, GAIN, FLUSH = range(4)
STAGES = max(FINISH_STAGE.values())


class Stage:
    """What travels with a word: `valid`; `gain`, a word of gains rather than of the body; `head`
    and `tail`, first and last of its frame; `slot` and `out_slot`, ring places of the frame; the
    frame's flags; `image_first`, `image_last`; `limit`, valid lanes; `tables`, two addresses."""

    def __init__(self, index: int, shape: Shape) -> None:
        self.fields: dict[str, Signal] = {}
        table = address_bits(shape.config.engine_words)
        for name, width in (
            ("valid", 1), ("gain", 1), ("head", 1), ("tail", 1), ("slot", 3), ("out_slot", 2),
            ("first", 1), ("plane_first", 1), ("plane_last", 1), ("last", 1), ("gain_first", 1),
            ("image_first", 1), ("image_last", 1), ("limit", shape.n.bit_length()),
            ("table_0", table), ("table_1", table), ("word", shape.words.bit_length()),
        ):  # fmt: skip
            self.fields[name] = Signal(width, name=f"{name}_{index}")

    def __getattr__(self, name: str) -> Signal:
        try:
            return self.__dict__["fields"][name]
        except KeyError:
            raise AttributeError(name) from None


class Control(Elaboratable):
    """Issues a word per cycle: frames of the body when they have arrived, then, of PREPARE, the
    gains, both when `constants` are there and a write slot is free.

    `stages[k]` is the word that was issued k cycles ago. `freed`: a frame's read buffers have been
    read; `finished`: a frame is in the write buffers; `drained` gives its write slot back.
    `complete`: all frames are drained.
    """

    def __init__(self, shape: Shape, job: Job, ring: FrameRing, items: TableItems) -> None:
        self.shape, self.job, self.ring, self.items = shape, job, ring, items
        self.clear, self.constants = Signal(), Signal()
        self.arrived, self.freed, self.finished, self.drained = (
            Signal(name=name) for name in ("arrived", "freed", "finished", "drained")
        )
        self.complete = Signal()
        self.gains = Signal(address_bits(shape.config.engine_words))  # first of trend's own gains
        self.stages = [Stage(i, shape) for i in range(STAGES + 1)]

    def elaborate(self, platform: object) -> Module:
        """State, counters of frames and words, and the chain of stages."""
        m = Module()
        shape, job, ring, now = self.shape, self.job, self.ring, self.stages[0]
        state, left = Signal(range(4)), Signal(shape.words.bit_length())
        ready, used = Signal(range(s.RING + 1)), Signal(range(WRITE_SLOTS + 1))
        slot, gains_left = Signal(range(s.RING)), Signal(16)
        load, body_load, gain_load = Signal(), Signal(), Signal()
        open_ = (left <= 1) & (used != WRITE_SLOTS)
        words = Signal.like(left)
        last = ring.flags["last"][slot]
        m.d.comb += [
            body_load.eq((state == BODY) & open_ & ready.any()),
            gain_load.eq((state == GAIN) & open_), load.eq(body_load | gain_load),
            words.eq(
                Mux(state == BODY, ring.words[slot],
                    Mux(gains_left <= shape.words, gains_left, shape.words))
            ),
            now.valid.eq(left.any()), now.tail.eq(left == 1),
            self.complete.eq((state == FLUSH) & ~left.any() & ~used.any()),
        ]  # fmt: skip
        with m.If(now.valid):
            m.d.sync += [left.eq(left - 1), now.head.eq(0), now.word.eq(now.word + 1)]
        with m.If(load):
            m.d.sync += [
                left.eq(words), now.head.eq(1), now.word.eq(0), now.gain.eq(gain_load),
                now.out_slot.eq(now.out_slot + 1), now.slot.eq(slot),
                now.gain_first.eq(gain_load & (gains_left == job.gain_words)),
                now.last.eq(Mux(state == BODY, last, gains_left <= shape.words)),
                *(now.fields[name].eq(ring.flags[name][slot] & body_load)
                  for name in ("first", "plane_first", "plane_last")),
            ]  # fmt: skip
        with m.Switch(state):
            with m.Case(WAIT), m.If(self.constants):
                m.d.sync += [state.eq(Mux(job.body, BODY, GAIN)), gains_left.eq(job.gain_words)]
            with m.Case(BODY), m.If(body_load):
                m.d.sync += slot.eq(slot + 1)
                with m.If(last):
                    m.d.sync += state.eq(Mux(job.prepare, GAIN, FLUSH))
            with m.Case(GAIN), m.If(gain_load):
                m.d.sync += gains_left.eq(gains_left - words)
                with m.If(gains_left <= shape.words):
                    m.d.sync += state.eq(FLUSH)
        for counter, up, down in (
            (ready, self.arrived, body_load), (used, load, self.drained)
        ):  # fmt: skip
            with m.If(up & ~down):
                m.d.sync += counter.eq(counter + 1)
            with m.Elif(down & ~up):
                m.d.sync += counter.eq(counter - 1)
        self._places(m, body_load, gain_load, slot)
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            m.d.sync += [after.fields[name].eq(before.fields[name]) for name in after.fields]
        operations = {"PREPARE": job.prepare, "UPDATE_CODES": job.codes,
                      "UPDATE_STREAM": job.stream, "READ": job.read}  # fmt: skip
        for name, operation in operations.items():
            free, finish = self.stages[FREE_STAGE[name]], self.stages[FINISH_STAGE[name]]
            with m.If(operation):
                m.d.comb += [
                    self.freed.eq(free.valid & free.tail & ~free.gain),
                    self.finished.eq(finish.valid & finish.tail),
                ]
        with m.If(self.clear):
            m.d.sync += [
                state.eq(WAIT), left.eq(0), ready.eq(0), used.eq(0), slot.eq(0),
                now.out_slot.eq(WRITE_SLOTS - 1),
            ]  # fmt: skip
            # A word of the instruction before, done by an earlier stage than this one's words are.
            m.d.sync += [stage.valid.eq(0) for stage in self.stages[1:]]
        return m

    def _places(self, m: Module, body_load: Signal, gain_load: Signal, slot: Signal) -> None:
        """Positions within images, valid lanes of planes, addresses of constants."""
        shape, job, ring, items, now = self.shape, self.job, self.ring, self.items, self.stages[0]
        field, n = job.descriptor.field, shape.n
        position, image, channels = Signal(24), Signal(8), Signal(16)
        plane_end = now.tail & now.plane_last
        m.d.comb += [
            now.image_first.eq(position == 0),
            now.image_last.eq(position == field["positions"] - 1),
            now.limit.eq(Mux(channels > n, n, channels)),
        ]
        per_image = job.trend & job.prepare | job.codes & ~job.affine
        step = Mux(
            now.gain,
            job.trend | job.affine | (image == field["images"] - 1),
            Mux(per_image, now.image_last, plane_end),
        )
        stride = Mux(job.prepare & job.trend & (~now.gain | job.closed), 2, 1)
        with m.If(now.valid):
            m.d.sync += [
                position.eq(Mux(now.image_last, 0, position + 1)),
                image.eq(Mux(image == field["images"] - 1, 0, image + 1)),
            ]
            with m.If(step):
                m.d.sync += [
                    now.table_0.eq(now.table_0 + stride), now.table_1.eq(now.table_1 + stride)
                ]  # fmt: skip
        starts = [
            (body_load & ring.flags["first"][slot],
             Mux(job.codes, items.home["gain"], Mux(job.trend, items.outputs, items.home["a"])),
             Mux(job.trend, items.outputs + 1, items.home["b"])),
            (gain_load & ~now.gain,
             Mux(job.trend, Mux(job.closed, items.outputs, self.gains), items.home["a"]),
             items.home["a_now"]),
        ]  # fmt: skip
        for start, table_0, table_1 in starts:
            with m.If(start):
                m.d.sync += [
                    position.eq(0), image.eq(0), now.table_0.eq(table_0), now.table_1.eq(table_1)
                ]  # fmt: skip
        part_channels = Array(job.descriptor.part("channels"))[ring.part[slot]]
        with m.If(body_load & ring.flags["plane_first"][slot]):
            rest = Mux(channels > n, channels - n, 0)
            m.d.sync += channels.eq(Mux(ring.flags["part_first"][slot], part_channels, rest))
        with m.If(self.clear):
            m.d.sync += now.gain.eq(0)

    def restart(self, stream: int, stage: Stage) -> tuple[Value, Value]:
        """(restart, skip) of a read stream for the word in `stage`."""
        return (
            stage.head & Array(self.ring.restart[stream])[stage.slot],
            Array(self.ring.skip[stream])[stage.slot],
        )
