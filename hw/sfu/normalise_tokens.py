"""NORMALISE_TOKENS: values of each position less their mean, over their deviation."""

from __future__ import annotations

from operator import add

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed

from signmask.hw.delays import delays
from signmask.hw.moments import MEAN_BITS, R_BITS, SQUARES_BITS, TOTAL_BITS, GroupMoments, delayed
from signmask.hw.rounding import (
    join_products,
    lanes_of,
    partial_products,
    saturate,
    shift_round,
)
from signmask.hw.sfu.operation import RAW_BITS
from signmask.hw.sfu.rows import RowOperation, RowWalk, pipelined_tree
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.numerics import CENTRED_BITS, MEAN_FRACTION
from signmask.hw.spec.timing import TOKEN_SUMS

HALF = RAW_BITS // 2
SQUARED = TOKEN_SUMS - 1  # cycles from a word's address to its squares
SCALE_BITS = 6  # of shift + h
SCALED_BITS = CENTRED_BITS + R_BITS
OUTPUT_STAGES = 5  # subtract, times r (2), round, saturate


class NormaliseTokens(RowOperation):
    """Executes NORMALISE_TOKENS: one walk sums each token's values and squares, a second one,
    behind the first token's moments, normalises the values. Both take a word per cycle, so that a
    token's moments come when the second walk reaches it, and are held while it stays there.
    """

    def __init__(self, config: HardwareConfig) -> None:
        super().__init__(config, "NORMALISE_TOKENS", ("accumulator", "addend", "result"))

    def elaborate(self, platform: object) -> Module:
        """Two walks, and the moments between them."""
        m = Module()
        start, _, fields = self.latch(m)
        summing, emitting = RowWalk(1), RowWalk(1)
        m.submodules.summing, m.submodules.emitting = summing, emitting
        m.submodules.moments = moments = GroupMoments()
        self.begin(m, start, summing, "planes", fields)
        m.d.comb += [
            emitting.rows.eq(fields["tokens"]),
            emitting.amount.eq(fields["planes"]),
            moments.count.eq(fields["count"]),
            moments.epsilon.eq(fields["epsilon"]),
        ]
        last = self._sums(m, start, summing, moments, fields)
        # The second walk begins in the cycle of the first moments: its data come one cycle later.
        begin = delays(m, last, moments.LATENCY - 1, "token_last")[-1]
        begun = Signal()
        m.d.comb += emitting.start.eq(begin & ~begun)
        with m.If(start):
            m.d.sync += begun.eq(0)
        with m.Elif(emitting.start):
            m.d.sync += begun.eq(1)
        self._normalised(m, start, emitting, moments, fields)
        return m

    def _sums(
        self, m: Module, start: Value, walk: RowWalk, moments: GroupMoments,
        fields: dict[str, Signal],
    ) -> Value:  # fmt: skip
        """Sums of each token to `moments`; returns their pulse."""
        n = self.config.group
        m.d.comb += [
            self.accumulator.en.eq(walk.active),
            self.accumulator.addr.eq(
                self.address(m, start, "accumulator", walk.active, walk.last, fields["stride"])
            ),
        ]
        active = delays(m, walk.active, SQUARED, "sum_active")
        values: list[Value] = []
        squares: list[Value] = []
        for i, value in enumerate(lanes_of(self.accumulator.data, n)):
            y = Signal(signed(RAW_BITS), name=f"y_{i}")
            low = Signal(RAW_BITS, name=f"square_low_{i}")
            cross = Signal(signed(RAW_BITS), name=f"square_cross_{i}")
            high = Signal(RAW_BITS, name=f"square_high_{i}")
            square = Signal(SQUARES_BITS, name=f"square_{i}")
            head, rest = y[HALF:].as_signed(), y[:HALF]
            with m.If(active[1]):
                m.d.sync += y.eq(value >> fields["stat_shift"])
            with m.If(active[2]):
                m.d.sync += [low.eq(rest * rest), cross.eq(head * rest), high.eq(head * head)]
            with m.If(active[3]):
                m.d.sync += square.eq(low + cross.shift_left(HALF + 1) + high.shift_left(RAW_BITS))
            values.append(delayed(m, active[2:4], y, f"y_{i}"))
            squares.append(square)
        value_sum, levels, actives = pipelined_tree(m, values, walk.active, add, "total", SQUARED)
        square_sum, _, _ = pipelined_tree(m, squares, walk.active, _add_squares, "squares", SQUARED)
        first = delays(m, walk.first, SQUARED + levels, "sum_first")[-1]
        last = delays(m, walk.last, TOKEN_SUMS + levels, "sum_last")[-1]
        total, square_total = Signal(signed(TOTAL_BITS)), Signal(SQUARES_BITS)
        with m.If(actives[-1]):
            m.d.sync += [
                total.eq(Mux(first, 0, total) + value_sum),
                square_total.eq(Mux(first, 0, square_total) + square_sum),
            ]
        m.d.comb += [
            moments.valid.eq(last),
            moments.total.eq(Mux(fields["uncentred"], 0, total)),
            moments.squares.eq(square_total),
        ]
        return last

    def _normalised(
        self, m: Module, start: Value, walk: RowWalk, moments: GroupMoments,
        fields: dict[str, Signal],
    ) -> None:  # fmt: skip
        """The second walk: values, results and the end of the instruction."""
        n = self.config.group
        mean, factor = Signal(signed(MEAN_BITS)), Signal(R_BITS)
        scale = Signal(SCALE_BITS)
        with m.If(moments.valid_out):
            m.d.sync += [
                mean.eq(moments.mean << fields["stat_shift"]),
                factor.eq(moments.r),
                scale.eq(fields["shift"] + moments.h),
            ]
        active = delays(m, walk.active, OUTPUT_STAGES + 1, "active")
        last = delays(m, walk.last, OUTPUT_STAGES + 1, "last")
        final = delays(m, walk.final, OUTPUT_STAGES + 1, "final")
        held = delayed(m, active[1:2], factor, "factor")
        r = Cat(held, Const(0, 1)).as_signed()
        shift = delayed(m, active[1:4], scale, "scale")
        results = []
        for i, value in enumerate(lanes_of(self.addend.data, n)):
            centred = Signal(signed(CENTRED_BITS), name=f"centred_{i}")
            first, second = partial_products(centred, r)
            low = Signal(first.shape(), name=f"low_{i}")
            high = Signal(second.shape(), name=f"high_{i}")
            product = Signal(signed(SCALED_BITS), name=f"product_{i}")
            rounded = Signal(signed(SCALED_BITS), name=f"rounded_{i}")
            result = Signal(signed(RAW_BITS), name=f"result_{i}")
            wide = Cat(Const(0, MEAN_FRACTION), value).as_signed()
            with m.If(active[1]):
                m.d.sync += centred.eq(saturate(wide - mean, CENTRED_BITS))
            with m.If(active[2]):
                m.d.sync += [low.eq(first), high.eq(second)]
            with m.If(active[3]):
                m.d.sync += product.eq(join_products(low, high))
            with m.If(active[4]):
                m.d.sync += rounded.eq(shift_round(product, shift))
            with m.If(active[5]):
                m.d.sync += result.eq(saturate(rounded, RAW_BITS))
            results.append(result)
        m.d.comb += [
            self.addend.en.eq(walk.active),
            self.addend.addr.eq(
                self.address(m, start, "accumulator", walk.active, walk.last, fields["stride"])
            ),
            self.result.en.eq(active[-1]),
            self.result.addr.eq(
                self.address(m, start, "output", active[-1], last[-1], fields["output_stride"])
            ),
            self.result.data.eq(Cat(results)),
            self.result.lanes.eq(active[-1].replicate(n)),
            self.done.eq(final[-1]),
        ]


def _add_squares(a: Value, b: Value) -> Value:
    return (a + b)[:SQUARES_BITS]
