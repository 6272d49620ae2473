"""Which tables an instruction reads before its frames, and where they go in the table memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amaranth import Array, Cat, Const, Elaboratable, Module, Mux, Signal, Value

from signmask.hw.axi import ADDRESS_BITS
from signmask.hw.near_data.job import Job
from signmask.hw.near_data.shape import Shape
from signmask.hw.ports import address_bits
from signmask.hw.spec.isa import MAX_PARTS

# In the order in which they are read.
ITEMS = (
    "segments", "a", "b", "a_now", "b_now", "norm_gain", "norm_offset", "norm_gain_now",
    *(f"sums_{part}" for part in range(MAX_PARTS)),
    "mean_last", "mean_now", "inverse_now", "sigma_last", "gain",
)  # fmt: skip
SIZE_BITS = 24
NARROW = ("gain",)  # entries of 4 bytes; all others of 8


@dataclass(frozen=True)
class Item:
    """A table: whether it is read, its address, its bytes, its words in the table memory."""

    present: Value
    base: Value
    step: Value  # of the table, times `stride` it is added to the base
    stride: Value
    size: Value
    words: Value


class TableItems(Elaboratable):
    """The item `index` of ITEMS: `address`, `size` in bytes, `narrow`, and `target`, its first word
    in the table memory, kept in `home[name]` for those who use it. `present` has a bit per item.

    `take` reserves the item's words; `clear` frees them all. `outputs` is the first free word.
    """

    def __init__(self, shape: Shape, job: Job) -> None:
        self.shape, self.job = shape, job
        bits = address_bits(shape.config.engine_words)
        self.clear, self.take = Signal(), Signal()
        self.now, self.last = Signal(16), Signal(16)
        self.index = Signal(range(len(ITEMS)))
        self.present = Signal(len(ITEMS))
        self.address, self.size = Signal(ADDRESS_BITS), Signal(SIZE_BITS)
        self.narrow = Signal()
        self.outputs = Signal(bits)
        self.home = {name: Signal(bits, name=f"home_{name}") for name in ITEMS}

    def _items(self) -> Iterator[tuple[str, Item]]:
        job, field, n = self.job, self.job.descriptor.field, self.shape.n
        zero = Const(0, 1)
        planes = field["planes"]
        groups = field["groups"]
        fixed, open_ = job.prepare & ~job.trend, job.prepare & job.calibrated & ~job.closed
        step = Mux(job.affine, 0, Mux(job.closed, self.now, self.last))
        stride, size = field["cal_stride"], planes * (8 * n)
        yield "segments", Item(job.activation, field["table"], zero, zero, Const(24 * n), Const(3))
        yield "a", Item(fixed, field["cal_a"], step, stride, size, planes)
        yield "b", Item(fixed, field["cal_b"], step, stride, size, planes)
        yield "a_now", Item(open_, field["cal_a"], self.now, stride, size, planes)
        yield "b_now", Item(open_, field["cal_b"], self.now, stride, size, planes)
        trend = job.prepare & job.trend
        both = trend & job.both_steps
        stride, step = field["norm_stride"], Mux(job.both_steps, self.last, self.now)
        for name in ("norm_gain", "norm_offset"):
            yield name, Item(trend, field[name], step, stride, size, planes)
        stepped = both & stride.any()
        yield "norm_gain_now", Item(stepped, field["norm_gain"], self.now, stride, size, planes)
        for part in range(MAX_PARTS):
            words = Cat(Const(0, 1), field[f"planes_{part}"] * field["images"])
            used = trend & (field["parts"] > part)
            yield (
                f"sums_{part}",
                Item(used, field[f"sums_{part}"], zero, zero, words * (8 * n), words),
            )
        group_words = (groups + (n - 1)) // n if n & (n - 1) == 0 else _quotient(groups, n)
        bytes_ = Cat(Const(0, 3), groups)
        for name, table, when in (
            ("mean_last", "cal_mean", self.last), ("mean_now", "cal_mean", self.now),
            ("inverse_now", "cal_inverse", self.now), ("sigma_last", "cal_sigma", self.last),
        ):  # fmt: skip
            yield name, Item(trend, field[table], when, bytes_, bytes_, group_words)
        yield (
            "gain",
            Item(job.codes, field["gain"], zero, zero, job.gain_words * (4 * n), job.gain_words),
        )

    def elaborate(self, platform: object) -> Module:
        """One item at a time through one multiplier."""
        m = Module()
        names, items = zip(*self._items(), strict=True)
        base, step, stride = Signal(ADDRESS_BITS), Signal(16), Signal(24)
        words = Signal.like(self.outputs)
        m.d.comb += [
            self.present.eq(Cat(item.present for item in items)),
            base.eq(Array(item.base for item in items)[self.index]),
            step.eq(Array(item.step for item in items)[self.index]),
            stride.eq(Array(item.stride for item in items)[self.index]),
            words.eq(Array(item.words for item in items)[self.index]),
            self.address.eq(base + step * stride),
            self.size.eq(Array(item.size for item in items)[self.index]),
            self.narrow.eq(Array(Const(name in NARROW, 1) for name in names)[self.index]),
        ]
        with m.If(self.take):
            m.d.sync += self.outputs.eq(self.outputs + words)
            for i, name in enumerate(names):
                with m.If(self.index == i):
                    m.d.sync += self.home[name].eq(self.outputs)
        with m.If(self.clear):
            m.d.sync += self.outputs.eq(0)
        return m


def _quotient(value: Value, divisor: int) -> Value:
    """value / divisor rounded up, for at most 64 groups."""
    return Array(Const(-(-i // divisor), 7) for i in range(65))[value[:7]]
