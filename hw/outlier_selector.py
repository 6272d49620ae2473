"""Outlier selector of a row: which digits and which wide operands its PEs get in each pass."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.pe import LaneMix
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.numerics import DELTA_BITS, digit_passes

CODE_BITS = 8


class OutlierSelector(wiring.Component):
    """Splits a group of operands into passes, in three stages.

    `operands` (or `padding` in every lane when `outside`) enters when `advance` is 1 and is looked
    at for outliers; the next `advance` ranks them; the one after that would replace it. While it is
    in this last stage, `more` says for j = 0.. whether more than j + 1 passes are needed, and for
    each `place` = 0.. with `issue` = 1 the lanes of that pass appear in the next cycle: a digit per
    narrow lane, lane index and operand per full lane. `active` is 0 for a pass that this row does
    not need; its lanes keep what they have.

    Deltas: inliers and the first outliers go in pass 0, later outliers in later passes, lowest lane
    first; when that takes longer than digit by digit, and for codes, narrow lanes get digit `place`
    of every operand.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.mix = mix = LaneMix.of(config)
        self.inlier_bits = config.inlier_bits
        super().__init__(
            {
                "operands": In(mix.group * DELTA_BITS), "outside": In(1),
                "padding": In(signed(DELTA_BITS)), "delta": In(1), "advance": In(1),
                "issue": In(1), "place": In(mix.place_bits),
                "more": Out(max(1, mix.digits - 1)), "active": Out(1),
                "digits": Out(mix.group * mix.narrow_bits),
                "indices": Out(mix.full_lanes * mix.index_bits),
                "values": Out(mix.full_lanes * DELTA_BITS),
            }
        )  # fmt: skip

    @property
    def module(self) -> str:
        """Name of the Verilog module."""
        return self.mix.module.replace("pe", "outlier_selector", 1)

    def elaborate(self, platform: object) -> Module:
        """Three register stages; only outputs are reset, other registers are read behind them."""
        m = Module()
        n = self.mix.group
        given = Mux(self.outside, Cat(*[self.padding] * n), self.operands)
        held = Signal(n * DELTA_BITS, reset_less=True)
        outlier = Signal(n, reset_less=True)
        lanes = Signal(n * DELTA_BITS, reset_less=True)
        with m.If(self.advance):
            m.d.sync += [held.eq(given), outlier.eq(Cat(map(self._is_outlier, _words(given)))),
                         lanes.eq(held)]  # fmt: skip
        ranks, by_digits, inlier = self._rank(m, outlier)
        m.d.comb += self.active.eq(Cat(Const(1, 1), self.more).bit_select(self.place, 1))
        digits = self._digits(m, _words(lanes), by_digits, inlier)
        indices, values = self._full(m, _words(lanes), ranks, by_digits)
        with m.If(self.issue & self.active):
            m.d.sync += [
                self.digits.eq(Cat(digits)),
                self.indices.eq(Cat(indices)),
                self.values.eq(Cat(values)),
            ]
        return m

    def _is_outlier(self, word: Value) -> Value:
        """Whether the bits above an inlier differ from its sign."""
        sign = word[self.inlier_bits - 1 :]
        return sign.any() & ~sign.all()

    def _rank(self, m: Module, outlier: Signal) -> tuple[list[Signal], Signal, Signal]:
        """Second stage: (per lane the number of its outlier, from 1, or 0 for an inlier; whether to
        go digit by digit; one bit per inlier), and `more`."""
        mix, n = self.mix, self.mix.group
        capacity = mix.full_lanes * mix.digits
        counts = _prefix_sums(list(outlier))
        ranks = [Signal(range(min(n, capacity) + 1), name=f"rank_{i}", reset_less=True)
                 for i in range(n)]  # fmt: skip
        by_digits = Signal(reset_less=True)
        inlier = Signal(n, reset_less=True)
        with m.If(self.advance):
            # A rank beyond the capacity is cut off: the group then goes digit by digit.
            m.d.sync += [rank.eq(Mux(outlier[i], counts[i], 0)) for i, rank in enumerate(ranks)]
            m.d.sync += [
                by_digits.eq(~self.delta | (counts[-1] > capacity)),
                inlier.eq(~outlier),
            ]
            code_passes = digit_passes(CODE_BITS, self.inlier_bits)
            for j in range(mix.digits - 1):
                crowded = counts[-1] > (j + 1) * mix.full_lanes
                needed = Mux(self.delta, crowded, int(code_passes > j + 1))
                m.d.sync += self.more[j].eq(needed)
        return ranks, by_digits, inlier

    def _digits(
        self, m: Module, words: list[Value], by_digits: Signal, inlier: Signal
    ) -> list[Value]:
        """Narrow operands of this pass."""
        mix, k = self.mix, self.inlier_bits
        top = Signal(mix.place_bits)
        m.d.comb += top.eq(Mux(self.delta, mix.digits - 1, digit_passes(CODE_BITS, k) - 1))
        found = []
        for i, word in enumerate(words):
            wide = Cat(word, word[-1].replicate(mix.digits * k + 1 - DELTA_BITS))
            digit = Signal(mix.narrow_bits, name=f"digit_{i}")
            with m.Switch(self.place):
                for place in range(mix.digits):
                    with m.Case(place) if place < mix.digits - 1 else m.Default():
                        sign = wide[(place + 1) * k] & (top == place)
                        m.d.comb += digit.eq(Cat(wide[place * k : (place + 1) * k], sign))
            # In pass 0 the digit of an inlier is the inlier, but for its sign.
            whole = Cat(word[:k], word[k - 1])
            kept = inlier[i] & (self.place == 0)
            found.append(Mux(by_digits, digit, Mux(kept, whole, 0)))
        return found

    def _full(
        self, m: Module, words: list[Value], ranks: list[Signal], by_digits: Signal
    ) -> tuple[list[Value], list[Value]]:
        """Lane indices and operands of the outliers of this pass, zeros where there is none."""
        mix = self.mix
        indices: list[Value] = []
        values: list[Value] = []
        for j in range(mix.full_lanes):
            due = Signal.like(ranks[0], name=f"due_{j}")
            m.d.comb += due.eq(Mux(by_digits, 0, self.place * mix.full_lanes + j + 1))
            hits = Signal(mix.group, name=f"hits_{j}")
            m.d.comb += hits.eq(Cat((rank == due) & (due != 0) for rank in ranks))
            numbers = [Const(i, mix.index_bits) for i in range(mix.group)]
            for found, choices in ((indices, numbers), (values, words)):
                found.append(_any(map(_gated, choices, hits)))
        return indices, values


def _words(packed: Value) -> list[Value]:
    return [packed[at : at + DELTA_BITS] for at in range(0, len(packed), DELTA_BITS)]


def _prefix_sums(flags: list[Value]) -> list[Value]:
    """Number of flags set up to and with each, in logarithmic depth."""
    if len(flags) == 1:
        return flags
    half = len(flags) // 2
    low, high = _prefix_sums(flags[:half]), _prefix_sums(flags[half:])
    bits = len(flags).bit_length()
    return low + [(low[-1] + count)[:bits] for count in high]


def _gated(word: Value, enable: Value) -> Value:
    return Mux(enable, word, 0)


def _any(words: Iterable[Value]) -> Value:
    """Bitwise OR as a tree."""
    level = list(words)
    while len(level) > 1:
        level = [
            level[i] | level[i + 1] if i + 1 < len(level) else level[i]
            for i in range(0, len(level), 2)
        ]
    return level[0]
