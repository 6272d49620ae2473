"""One PE: narrow and full multipliers, their adder tree, and an accumulator over taps."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.numerics import DELTA_BITS, digit_passes
from signmask.hw.spec.timing import TREE_RADIX, adder_stages

WEIGHT_BITS = 8
ACCUMULATOR_BITS = 32


@dataclass(frozen=True)
class LaneMix:
    """Multipliers of a PE: `group` narrow ones of narrow_bits x 8, `full_lanes` of 9 x 8.

    A narrow operand is one of `digits` digits of a longer one, `digit_bits` apart.
    """

    group: int
    full_lanes: int
    narrow_bits: int
    digit_bits: int
    digits: int

    @classmethod
    def of(cls, config: HardwareConfig) -> LaneMix:
        """The lanes that a configuration names."""
        k = config.inlier_bits
        return cls(config.group, config.full_lanes, k + 1, k, digit_passes(DELTA_BITS, k))

    @classmethod
    def dense(cls, group: int) -> LaneMix:
        """`group` equal lanes for 8-bit operands in one pass, without digits."""
        return cls(group, 0, 8, 8, 1)

    @property
    def index_bits(self) -> int:
        """Bits of a lane index."""
        return max(1, (self.group - 1).bit_length())

    @property
    def place_bits(self) -> int:
        """Bits of a digit's number, at least 1."""
        return max(1, (self.digits - 1).bit_length())

    @property
    def tree_stages(self) -> int:
        """Pipeline stages between the products and their sum."""
        return adder_stages(self.group, self.full_lanes)

    @property
    def stages(self) -> int:
        """Pipeline stages: multiply, the tree, combine the two kinds of lanes, accumulate."""
        return self.tree_stages + 3

    @property
    def module(self) -> str:
        """Name of the Verilog module."""
        return (
            f"signmask_pe_{self.group}x{self.narrow_bits}_{self.full_lanes}x{DELTA_BITS}"
            f"_{self.digits}"
        )


class Pe(wiring.Component):
    """Dot product of a group, one pass per cycle, summed over passes and taps.

    Operands and weights enter in stage 0. `enable` has one bit per stage: a stage whose bit is 0
    keeps its registers, so a pass travels with its bit, one stage per cycle. `place` (the number of
    the digit in the narrow lanes) belongs to the stage before the last, the next three to the last:
    `first` starts a new sum, from `initial` if `add` is 1, else from 0. `total` shows the sum in
    the cycle after the last stage.
    """

    def __init__(self, mix: LaneMix) -> None:
        self.mix = mix
        members = {
            "enable": In(mix.stages),
            "digits": In(mix.group * mix.narrow_bits),
            "weights": In(mix.group * WEIGHT_BITS),
            "first": In(1),
            "add": In(1),
            "initial": In(signed(ACCUMULATOR_BITS)),
            "total": Out(signed(ACCUMULATOR_BITS)),
        }
        if mix.digits > 1:
            members["place"] = In(mix.place_bits)
        if mix.full_lanes:
            members["indices"] = In(mix.full_lanes * mix.index_bits)
            members["values"] = In(mix.full_lanes * DELTA_BITS)
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """The pipeline; only `total` is reset, other registers are read behind their enable."""
        m = Module()
        mix, tree = self.mix, self.mix.tree_stages
        weights = [_word(self.weights, i, WEIGHT_BITS) for i in range(mix.group)]
        products: list[Value] = []
        for i, weight in enumerate(weights):
            product = Signal(signed(mix.narrow_bits + WEIGHT_BITS), reset_less=True)
            with m.If(self.enable[0]):
                m.d.sync += product.eq(_word(self.digits, i, mix.narrow_bits) * weight)
            products.append(product)
        narrow = _sum(m, products, self.enable[1 : tree + 1])
        if mix.digits > 1:
            shifted: Value = narrow
            for place in range(1, mix.digits):
                shifted = Mux(self.place == place, narrow << place * mix.digit_bits, shifted)
            narrow = shifted
        if mix.full_lanes:
            narrow = narrow + _sum(m, self._full(m), self.enable[2 : tree + 1])
        partial = Signal(narrow.shape(), reset_less=True)
        with m.If(self.enable[tree + 1]):
            m.d.sync += partial.eq(narrow)
        with m.If(self.enable[tree + 2]):
            start = Mux(self.add, self.initial, 0)
            m.d.sync += self.total.eq(Mux(self.first, start, self.total) + partial)
        return m

    def _full(self, m: Module) -> list[Value]:
        """Products of the full lanes; their weight is selected in stage 0, multiplied in 1."""
        mix = self.mix
        products: list[Value] = []
        for j in range(mix.full_lanes):
            index = self.indices.word_select(j, mix.index_bits)
            weight = Signal(signed(WEIGHT_BITS), name=f"weight_{j}", reset_less=True)
            value = Signal(signed(DELTA_BITS), name=f"value_{j}", reset_less=True)
            with m.If(self.enable[0]):
                m.d.sync += value.eq(_word(self.values, j, DELTA_BITS))
                with m.Switch(index):
                    for i in range(mix.group):
                        with m.Case(i) if i < mix.group - 1 else m.Default():
                            m.d.sync += weight.eq(_word(self.weights, i, WEIGHT_BITS))
            product = Signal(
                signed(DELTA_BITS + WEIGHT_BITS), name=f"full_product_{j}", reset_less=True
            )
            with m.If(self.enable[1]):
                m.d.sync += product.eq(value * weight)
            products.append(product)
        return products


def _word(packed: Value, i: int, bits: int) -> Value:
    return packed[i * bits : (i + 1) * bits].as_signed()


def _sum(m: Module, terms: list[Value], enables: Value) -> Value:
    """Sum in as many registered stages as there are enables, TREE_RADIX terms to one in each."""
    for enable in enables:
        sums: list[Value] = []
        for at in range(0, len(terms), TREE_RADIX):
            total = _balanced(terms[at : at + TREE_RADIX])
            register = Signal(total.shape(), name="sum", reset_less=True)
            with m.If(enable):
                m.d.sync += register.eq(total)
            sums.append(register)
        terms = sums
    (total,) = terms
    return total


def _balanced(terms: list[Value]) -> Value:
    while len(terms) > 1:
        terms = [
            terms[i] + terms[i + 1] if i + 1 < len(terms) else terms[i]
            for i in range(0, len(terms), 2)
        ]
    return terms[0]
