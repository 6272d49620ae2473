"""Statistics of normalisation groups: mean and reciprocal deviation, one group per cycle."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.delays import delays
from signmask.hw.divider import PipelinedDivider, PipelinedRoot
from signmask.hw.rounding import join_products, partial_products, shift_round
from signmask.hw.spec.numerics import MEAN_FRACTION, RSQRT_FRACTION, TREND_FRACTION

TOTAL_BITS = 33  # total**2 <= count * squares < 2**63
SQUARES_BITS = 63
COUNT_BITS = 32
EPSILON_BITS = 48
MEAN_BITS = 40
ROOT_BITS = 24
R_BITS = 24
SHIFT_BITS = 6  # of h, signed
SCALED_BITS = 32  # of r moved by a trend, signed
RATIO_BITS = 40
FACTOR_BITS = 32  # of inverse_now and sigma_last, signed
HALF = 32
SCALED_SPLIT, RATIO_SPLIT = 16, 20


def delayed(m: Module, valid: list[Value], value: Value, name: str) -> Value:
    """`value` after one register for each of the given stage enables."""
    for i, enable in enumerate(valid):
        register = Signal(value.shape(), name=f"{name}_{i}")
        with m.If(enable):
            m.d.sync += register.eq(value)
        value = register
    return value


class GroupMoments(wiring.Component):
    """`numerics.group_moments` of one group per cycle; what is presented with `valid` comes out
    with `valid_out` LATENCY cycles later, and stays until the next comes out.

    In: total, squares; static count, epsilon. 1 <= count * squares - total**2 + epsilon, and no
    term reaches 2**63; the mean has 40 bits. Out: mean, r, h.
    """

    ROOT_STAGES = 4  # products, their difference, two of the even shift
    LATENCY = ROOT_STAGES + 2 * ROOT_BITS
    MEAN_STAGES = MEAN_BITS + 1  # magnitude, one per quotient bit, sign

    def __init__(self) -> None:
        super().__init__(
            {
                "valid": In(1), "total": In(signed(TOTAL_BITS)), "squares": In(SQUARES_BITS),
                "count": In(COUNT_BITS), "epsilon": In(EPSILON_BITS),
                "valid_out": Out(1), "mean": Out(signed(MEAN_BITS)), "r": Out(R_BITS),
                "h": Out(signed(SHIFT_BITS)),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Mean and reciprocal deviation in parallel, the mean delayed."""
        m = Module()
        stages = delays(m, self.valid, self.LATENCY, "valid")
        m.d.comb += self.valid_out.eq(stages[-1])
        self._deviation(m, stages)
        self._mean(m, stages)
        return m

    def _deviation(self, m: Module, valid: list[Value]) -> None:
        low, high, square = Signal(64), Signal(HALF), Signal(64)
        variance = Signal(64)
        coarse, leading = Signal(64), Signal(2)
        mantissa, h = Signal(2 * ROOT_BITS), Signal(signed(SHIFT_BITS))
        with m.If(valid[0]):
            m.d.sync += [
                low.eq(self.count * self.squares[:HALF]),
                high.eq(self.count * self.squares[HALF:]),
                square.eq(self.total * self.total),
            ]
        with m.If(valid[1]):
            m.d.sync += variance.eq((low + Cat(Const(0, HALF), high)) + (self.epsilon - square))
        # The highest pair of bits that is not zero comes to the top: 16 and 8 pairs, then the rest.
        value, zeros = _without_leading_zeros(variance, (16, 8))
        with m.If(valid[2]):
            m.d.sync += [coarse.eq(value), leading.eq(zeros)]
        value, zeros = _without_leading_zeros(coarse, (4, 2, 1))
        with m.If(valid[3]):
            m.d.sync += [
                mantissa.eq(value[-2 * ROOT_BITS :]),
                # Pair 23 holds the top bits of 46 or 47; pairs are counted from 31 downwards.
                h.eq(31 - (RSQRT_FRACTION // 2) - Cat(zeros, leading)),
            ]
        m.submodules.root = root = PipelinedRoot(ROOT_BITS)
        m.submodules.reciprocal = reciprocal = PipelinedDivider(ROOT_BITS, R_BITS)
        m.d.comb += [
            root.valid.eq(valid[self.ROOT_STAGES]),
            root.value.eq(mantissa),
            reciprocal.valid.eq(root.valid_out),
            reciprocal.head.eq(1 << (RSQRT_FRACTION - R_BITS)),
            reciprocal.tail.eq(0),
            reciprocal.divisor.eq(root.root),
            self.r.eq(reciprocal.quotient),
            self.h.eq(delayed(m, valid[self.ROOT_STAGES : -1], h, "h")),
        ]

    def _mean(self, m: Module, valid: list[Value]) -> None:
        """round(total * 2**8 / count) = floor((total * 2**9 + count) / (2 * count)); of a negative
        numerator a it is ~(~a // divisor)."""
        digits = MEAN_BITS - 1
        start = self.LATENCY - self.MEAN_STAGES
        total = delayed(m, valid[:start], self.total, "total")
        numerator = Signal(signed(TOTAL_BITS + MEAN_FRACTION + 2))
        m.d.comb += numerator.eq(Cat(Const(0, MEAN_FRACTION + 1), total).as_signed() + self.count)
        magnitude = Signal(len(numerator) - 1)
        negative = Signal()
        with m.If(valid[start]):
            m.d.sync += [
                negative.eq(numerator[-1]),
                magnitude.eq(numerator[:-1] ^ numerator[-1].replicate(len(magnitude))),
            ]
        m.submodules.mean_divider = divider = PipelinedDivider(COUNT_BITS + 1, digits, True)
        m.d.comb += [
            divider.valid.eq(valid[start + 1]),
            divider.head.eq(magnitude[digits:]),
            divider.tail.eq(magnitude[:digits]),
            divider.divisor.eq(Cat(Const(0, 1), self.count)),
        ]
        sign = delayed(m, valid[start + 1 : start + 1 + digits], negative, "negative")
        with m.If(divider.valid_out):
            m.d.sync += self.mean.eq(Cat(divider.quotient ^ sign.replicate(digits), sign))


def _without_leading_zeros(value: Value, pairs: tuple[int, ...]) -> tuple[Value, Value]:
    """(value shifted left by zero pairs of bits at its top, their number by binary digits)."""
    found = []
    for count in pairs:
        zero = ~value[-2 * count :].any()
        value = Mux(zero, Cat(Const(0, 2 * count), value[: -2 * count]), value)
        found.append(zero)
    return value, Cat(reversed(found))


class TrendMove(wiring.Component):
    """`numerics.move_by_trend` of one group per cycle; `valid_out` is `valid` LATENCY cycles later.

    In: mean, r, h, and one cycle later `ratio` and `change` of the group (`TrendRatio`).
    Out: moved mean, r of 32 signed bits, h.
    """

    LATENCY = 4

    def __init__(self) -> None:
        super().__init__(
            {
                "valid": In(1), "mean": In(signed(MEAN_BITS)), "r": In(R_BITS),
                "h": In(signed(SHIFT_BITS)), "ratio": In(signed(RATIO_BITS)),
                "change": In(signed(MEAN_BITS)), "valid_out": Out(1),
                "mean_out": Out(signed(MEAN_BITS)), "r_out": Out(signed(SCALED_BITS)),
                "h_out": Out(signed(SHIFT_BITS)),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Wait for the ratio, two stages of its product, rounding."""
        m = Module()
        stages = delays(m, self.valid, self.LATENCY, "valid")
        r = delayed(m, stages[:1], self.r, "r")
        low, high = Signal(signed(64)), Signal(signed(64))
        product = Signal(signed(64))
        mean = Signal(signed(MEAN_BITS))
        first, second = partial_products(Cat(r, Const(0, 1)).as_signed(), self.ratio, RATIO_SPLIT)
        earlier = delayed(m, stages[:1], self.mean, "mean")
        with m.If(stages[1]):
            m.d.sync += [low.eq(first), high.eq(second), mean.eq(earlier + self.change)]
        with m.If(stages[2]):
            m.d.sync += product.eq(join_products(low, high, RATIO_SPLIT))
        with m.If(stages[3]):
            m.d.sync += self.r_out.eq(shift_round(product, Const(TREND_FRACTION)))
        m.d.comb += [
            self.valid_out.eq(stages[-1]),
            self.mean_out.eq(delayed(m, stages[2:4], mean, "moved_mean")),
            self.h_out.eq(delayed(m, stages[:4], self.h, "h")),
        ]
        return m


class TrendRatio(wiring.Component):
    """Calibrated change of one group per cycle: ratio = shift_round(inverse_now * sigma_last, 14),
    change = mean_now - mean_last; `valid_out` is `valid` LATENCY cycles later. Entries are the low
    bits of parameter entries."""

    LATENCY = 3

    def __init__(self) -> None:
        super().__init__(
            {
                "valid": In(1), "mean_last": In(signed(MEAN_BITS)),
                "mean_now": In(signed(MEAN_BITS)), "inverse_now": In(signed(FACTOR_BITS)),
                "sigma_last": In(signed(FACTOR_BITS)), "valid_out": Out(1),
                "ratio": Out(signed(RATIO_BITS)), "change": Out(signed(MEAN_BITS)),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Two stages of the product, rounding."""
        m = Module()
        stages = delays(m, self.valid, self.LATENCY, "valid")
        low, high = Signal(signed(64)), Signal(signed(64))
        product = Signal(signed(64))
        change = Signal(signed(MEAN_BITS))
        first, second = partial_products(self.inverse_now, self.sigma_last, SCALED_SPLIT)
        with m.If(stages[0]):
            m.d.sync += [
                low.eq(first), high.eq(second), change.eq(self.mean_now - self.mean_last)
            ]  # fmt: skip
        with m.If(stages[1]):
            m.d.sync += product.eq(join_products(low, high, SCALED_SPLIT))
        with m.If(stages[2]):
            m.d.sync += self.ratio.eq(shift_round(product, Const(TREND_FRACTION)))
        m.d.comb += [
            self.valid_out.eq(stages[-1]),
            self.change.eq(delayed(m, stages[1:3], change, "change")),
        ]
        return m
