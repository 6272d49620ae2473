"""FP16 (IEEE 754 binary16) multipliers and an adder, for the paper's lane mix.

Rounding is to nearest, ties to even; subnormals are handled in full, never flushed; overflow gives
infinity and every NaN is the quiet NaN 0x7e00. Results equal numpy's float16. Each component takes
new operands in every cycle with `en` and gives the result `stages` such cycles later.
"""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

BITS = 16
EXPONENT_BITS = 5
FRACTION_BITS = 10
BIAS = 15
SIGNIFICAND_BITS = FRACTION_BITS + 1
NAN = 0x7E00
INFINITY = 0x7C00


class Unpacked:
    """Slices of an FP16 operand: significand with its hidden bit, biased exponent of at least 1."""

    def __init__(self, word: Value) -> None:
        fraction = word[:FRACTION_BITS]
        exponent = word[FRACTION_BITS : BITS - 1]
        self.word = word
        self.sign = word[BITS - 1]
        self.magnitude = word[: BITS - 1]
        self.normal = exponent.any()
        self.significand = Cat(fraction, self.normal)
        self.exponent = Cat(exponent[0] | ~self.normal, exponent[1:])
        self.infinite = exponent.all() & ~fraction.any()
        self.nan = exponent.all() & fraction.any()
        self.zero = ~self.magnitude.any()


def leading_zeros(value: Value) -> Value:
    """Zeros above the highest one of `value`, as a binary tree; len(value) - 1 for zero."""
    width = 1 << (len(value) - 1).bit_length()
    # Padding below with a one caps the count; zero itself is told apart by its magnitude.
    padded = Cat(Const(1, 1).replicate(width - len(value)), value)
    nodes: list[tuple[Value, Value | None]] = [(padded[i], None) for i in reversed(range(width))]
    while len(nodes) > 1:
        merged: list[tuple[Value, Value | None]] = []
        for (high, high_count), (low, low_count) in zip(nodes[::2], nodes[1::2], strict=True):
            top = ~high
            count = (
                top
                if high_count is None or low_count is None
                else Cat(Mux(high, high_count, low_count), top)
            )
            merged.append((high | low, count))
        nodes = merged
    found, count = nodes[0]
    return count if count is not None else ~found


class _Rounder:
    """Normalises and rounds sign * significand * 2**..., where the significand's top bit has the
    biased exponent `exponent` (signed); special operands override the result."""

    def __init__(self, m: Module, sign: Value, significand: Value, exponent: Value) -> None:
        width = len(significand)
        zeros = leading_zeros(significand)
        room = Signal(range(-64, 128))  # left shifts before the exponent reaches its least value
        m.d.comb += room.eq(exponent - 1)
        left = Signal(len(zeros))
        m.d.comb += left.eq(Mux(room < zeros, room[: len(zeros)], zeros))
        shifted = Signal(width)
        sticky = Signal()
        under = room < 0 if _may_be_negative(exponent) else Const(0, 1)
        if _may_be_negative(exponent):
            right = Signal(range(1 << len(zeros)))
            m.d.comb += right.eq(-room)
            wide = Signal(2 * width)
            m.d.comb += [
                wide.eq(Cat(Const(0, width), significand) >> right),
                shifted.eq(Mux(under, wide[width:], (significand << left)[:width])),
                sticky.eq(under & wide[:width].any()),
            ]
        else:
            m.d.comb += shifted.eq((significand << left)[:width])
        kept = shifted[width - SIGNIFICAND_BITS :]
        guard = shifted[width - SIGNIFICAND_BITS - 1]
        rest = shifted[: width - SIGNIFICAND_BITS - 1].any() | sticky
        coded = Signal(7)  # biased exponent of the hidden bit's place, 0 where there is none
        m.d.comb += coded.eq(Mux(under, 0, room - left) + kept[-1])
        rounded = Signal(FRACTION_BITS + 7)
        m.d.comb += rounded.eq(Cat(kept[:-1], coded) + (guard & (rest | kept[0])))
        overflow = rounded[FRACTION_BITS:] >= (1 << EXPONENT_BITS) - 1
        self.word = Cat(Mux(overflow, INFINITY, rounded[: BITS - 1])[: BITS - 1], sign)


def _may_be_negative(exponent: Value) -> bool:
    return exponent.shape().signed


def _staged(m: Module, en: Value, value: Value, name: str) -> Signal:
    register = Signal(value.shape(), name=name)
    with m.If(en):
        m.d.sync += register.eq(value)
    return register


class _Operation(wiring.Component):
    """Two operands `a` and `b`, a `result` after `stages` cycles with `en` (1 or 2)."""

    def __init__(self, a_shape: int | Shape, stages: int) -> None:
        if stages not in (1, 2):
            raise ValueError(f"stages is {stages}; choose 1 or 2.")
        self.stages = stages
        super().__init__({"en": In(1), "a": In(a_shape), "b": In(BITS), "result": Out(BITS)})

    def _finish(
        self, m: Module, sign: Value, significand: Value, exponent: Value, special: Value,
        override: Value,
    ) -> None:  # fmt: skip
        """Round, after a register between where there are two stages."""
        if self.stages == 2:
            sign, significand, exponent, special, override = (
                _staged(m, self.en, value, name)
                for value, name in (
                    (sign, "sign"), (significand, "significand"), (exponent, "exponent"),
                    (special, "special"), (override, "override"),
                )
            )  # fmt: skip
        word = _Rounder(m, sign, significand, exponent).word
        with m.If(self.en):
            m.d.sync += self.result.eq(Mux(special, override, word))


class Fp16Multiplier(_Operation):
    """FP16 x FP16."""

    def __init__(self, stages: int = 2) -> None:
        super().__init__(BITS, stages)

    def elaborate(self, platform: object) -> Module:
        """Product of significands, then normalisation and rounding."""
        m = Module()
        a, b = Unpacked(self.a), Unpacked(self.b)
        sign = Signal()
        product = Signal(2 * SIGNIFICAND_BITS)
        exponent = Signal(range(-BIAS, 64))
        special, override = Signal(), Signal(BITS)
        nan = a.nan | b.nan | (a.infinite & b.zero) | (b.infinite & a.zero)
        m.d.comb += [
            sign.eq(a.sign ^ b.sign),
            product.eq(a.significand * b.significand),
            exponent.eq(a.exponent + b.exponent + (1 - BIAS)),
            special.eq(nan | a.infinite | b.infinite | a.zero | b.zero),
            override.eq(
                Mux(nan, NAN, Cat(Mux(a.zero | b.zero, 0, Const(INFINITY, BITS - 1)), sign))
            ),
        ]
        self._finish(m, sign, product, exponent, special, override)
        return m


class NarrowMultiplier(_Operation):
    """Signed integer of `integer_bits` (operand `a`) x FP16."""

    def __init__(self, integer_bits: int, stages: int = 2) -> None:
        self.integer_bits = integer_bits
        super().__init__(signed(integer_bits), stages)

    def elaborate(self, platform: object) -> Module:
        """Magnitude times significand, then normalisation and rounding."""
        m = Module()
        b = Unpacked(self.b)
        bits = self.integer_bits
        sign = Signal()
        magnitude = Signal(bits)
        product = Signal(bits + SIGNIFICAND_BITS)
        exponent = Signal(range(64))
        special, override = Signal(), Signal(BITS)
        zero = b.zero | ~magnitude.any()
        nan = b.nan | (b.infinite & ~magnitude.any())
        m.d.comb += [
            sign.eq(self.a[-1] ^ b.sign),
            magnitude.eq(Mux(self.a[-1], -self.a, self.a)),
            product.eq(magnitude * b.significand),
            exponent.eq(b.exponent + bits),
            special.eq(nan | b.infinite | zero),
            override.eq(Mux(nan, NAN, Cat(Mux(zero, 0, Const(INFINITY, BITS - 1)), sign))),
        ]
        self._finish(m, sign, product, exponent, special, override)
        return m


class Fp16Adder(_Operation):
    """FP16 + FP16."""

    def __init__(self, stages: int = 2) -> None:
        super().__init__(BITS, stages)

    def elaborate(self, platform: object) -> Module:
        """Alignment and sum of significands, then normalisation and rounding."""
        m = Module()
        larger, smaller = Signal(BITS), Signal(BITS)
        swap = self.a[: BITS - 1] < self.b[: BITS - 1]
        m.d.comb += [
            larger.eq(Mux(swap, self.b, self.a)),
            smaller.eq(Mux(swap, self.a, self.b)),
        ]
        a, b = Unpacked(larger), Unpacked(smaller)
        # Two bits below the significand and a third that stands for all beneath them.
        width = SIGNIFICAND_BITS + 3
        distance = Signal(EXPONENT_BITS)
        wide = Signal(SIGNIFICAND_BITS + 2 + 32)
        aligned = Signal(width)
        total = Signal(width + 1)
        sign = Signal()
        exponent = Signal(range(64))
        special, override = Signal(), Signal(BITS)
        subtract = a.sign ^ b.sign
        nan = a.nan | b.nan | (a.infinite & b.infinite & subtract)
        high = Cat(Const(0, 3), a.significand)
        m.d.comb += [
            distance.eq(a.exponent - b.exponent),
            wide.eq(Cat(Const(0, 34), b.significand) >> distance),
            aligned.eq(Cat(wide[:32].any(), wide[32:])),
            total.eq(Mux(subtract, high - aligned, high + aligned)),
            sign.eq(a.sign),
            exponent.eq(a.exponent + 1),
            special.eq(nan | a.infinite | ~total.any()),
            # An exact zero is positive unless both operands are negative zeros.
            override.eq(Mux(nan, NAN, Mux(a.infinite, larger, Cat(Const(0, 15), a.sign & b.sign)))),
        ]
        self._finish(m, sign, total, exponent, special, override)
        return m
