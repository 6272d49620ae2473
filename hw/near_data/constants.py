"""When the tables are complete, and the constants that trend normalisation makes of them."""

from __future__ import annotations

from amaranth import Elaboratable, Module, Mux, Signal

from signmask.hw.near_data.job import Job
from signmask.hw.near_data.shape import Shape
from signmask.hw.near_data.table_items import TableItems
from signmask.hw.normalisation import NormalisationUnit
from signmask.hw.ports import address_bits
from signmask.hw.spec.isa import MAX_PARTS

WAIT, START, RUN, READY = range(4)


class Constants(Elaboratable):
    """Waits for `complete` (all tables are in the table memory), runs the normalisation unit for a
    trend, then holds `ready`.

    A closed loop takes A, B of this step, and A as gain. Other loops take A, B of the last step for
    segments, if there are any, and the gain alone of this one, at `gains`.
    """

    def __init__(self, shape: Shape, job: Job, items: TableItems) -> None:
        self.job, self.items = job, items
        self.clear, self.complete, self.ready = Signal(), Signal(), Signal()
        self.gains = Signal(address_bits(shape.config.engine_words))
        self.unit = NormalisationUnit(shape.config, shape.config.engine_words)

    def elaborate(self, platform: object) -> Module:
        """Up to two runs, one after the other."""
        m = Module()
        job, items, unit = self.job, self.items, self.unit
        field, home = job.descriptor.field, items.home
        m.submodules.unit = unit
        state, second = Signal(range(4)), Signal()
        stepped = job.both_steps & field["norm_stride"].any()
        with m.Switch(state):
            with m.Case(WAIT), m.If(self.complete):
                m.d.sync += [
                    state.eq(Mux(job.prepare & job.trend, START, READY)),
                    second.eq(~job.both_steps),
                ]
            with m.Case(START):
                m.d.sync += state.eq(RUN)
            with m.Case(RUN), m.If(unit.done):
                m.d.sync += [state.eq(Mux(second, READY, START)), second.eq(1)]
        with m.If(self.clear):
            m.d.sync += state.eq(WAIT)
        m.d.comb += [
            self.ready.eq(state == READY), unit.start.eq(state == START),
            self.gains.eq(items.outputs + Mux(job.both_steps, job.gain_words << 1, 0)),
            unit.trend.eq(second), unit.gain_only.eq(second & ~job.closed),
            unit.output.eq(Mux(unit.gain_only, self.gains, items.outputs)),
            unit.gain.eq(Mux(second & stepped, home["norm_gain_now"], home["norm_gain"])),
            unit.offset.eq(home["norm_offset"]),
            *(getattr(unit, name).eq(field[name]) for name in
              ("images", "parts", "groups", "count", "epsilon", "gain_shift", "mean_shift")),
            *(getattr(unit, name).eq(home[name]) for name in
              ("mean_last", "mean_now", "inverse_now", "sigma_last")),
            *(getattr(unit, f"channels_{i}").eq(field[f"channels_{i}"]) for i in range(MAX_PARTS)),
            *(getattr(unit, f"sums_{i}").eq(home[f"sums_{i}"]) for i in range(MAX_PARTS)),
        ]  # fmt: skip
        return m
