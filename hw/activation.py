"""Piecewise-linear activation in hardware: raw values to codes, changes to code deltas.

Both components are plain pipelines of `config.group` lanes that advance while `en` is high. A word
presented in a cycle with `en` comes out LATENCY such cycles later. They keep no valid bits. All
words are flat, lane 0 in the lowest bits. Static inputs (shifts, bounds, tables) are held while
words are under way.

Tables are the low bits of the three segment words (48-bit signed entries). Of a gain A, as of a
slope, the low 24 bits count: the compiler keeps both within them.
"""

from __future__ import annotations

from itertools import pairwise

from amaranth import Array, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.rounding import (
    join_products,
    lanes_of,
    partial_products,
    saturate,
    shift_round,
    tree_sum,
)
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import LOOPS
from signmask.hw.spec.numerics import DELTA_BITS, GAIN_BITS, Z_BITS

SEGMENTS = 8
SEGMENT_BITS = 3
ENTRY_BITS = 48  # of a parameter entry
SLOPE_BITS = 24
RAW_BITS = 32
CODE_BITS = 16
PRODUCT_BITS = RAW_BITS + GAIN_BITS
OPEN, CARRY = LOOPS.index("open"), LOOPS.index("carry")


class RawActivation(wiring.Component):
    """Codes and segments of raw values y with constants A, B (`numerics.activation_code`).

    In: y n*32 signed, a n*48 (A in the low 24 bits of an entry), b n*48; static z_shift,
    code_shift, low, high (int8), breaks 7*48, slopes 8*48, intercepts 8*48.
    Out: code n*16 signed, segment n*3, both of the same word.
    """

    LATENCY = 8

    def __init__(self, config: HardwareConfig) -> None:
        self.lanes = n = config.group
        super().__init__(
            {
                "en": In(1),
                "y": In(n * RAW_BITS), "a": In(n * ENTRY_BITS), "b": In(n * ENTRY_BITS),
                "z_shift": In(6), "code_shift": In(6), "low": In(signed(8)), "high": In(signed(8)),
                "breaks": In((SEGMENTS - 1) * ENTRY_BITS), "slopes": In(SEGMENTS * ENTRY_BITS),
                "intercepts": In(SEGMENTS * ENTRY_BITS),
                "code": Out(n * CODE_BITS), "segment": Out(n * SEGMENT_BITS),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Stages: two of A*y+B, z, segment, its table entries, two of slope*z+intercept, code."""
        m = Module()
        n = self.lanes
        # A break outside the range of z is never, or always, reached: one bit more than z says so.
        breaks = []
        for i, edge in enumerate(lanes_of(self.breaks, SEGMENTS - 1)):
            breaks.append(Signal(signed(Z_BITS + 1), name=f"break_{i}"))
            m.d.comb += breaks[-1].eq(saturate(edge, Z_BITS + 1))
        slopes = Array(v[:SLOPE_BITS].as_signed() for v in lanes_of(self.slopes, SEGMENTS))
        intercepts = Array(lanes_of(self.intercepts, SEGMENTS))
        words = zip(lanes_of(self.y, n), lanes_of(self.a, n), lanes_of(self.b, n), strict=True)
        codes, segments = [], []
        for i, (y, a, b) in enumerate(words):
            code, segment = self._lane(m, i, y, a, b, breaks, slopes, intercepts)
            codes.append(code)
            segments.append(segment)
        m.d.comb += [self.code.eq(Cat(codes)), self.segment.eq(Cat(segments))]
        return m

    def _lane(
        self, m: Module, lane: int, y: Value, a: Value, b: Value,
        breaks: list[Signal], slopes: Array, intercepts: Array,
    ) -> tuple[Signal, Signal]:  # fmt: skip
        """Pipeline of one lane; returns its code and segment registers."""
        b_1 = Signal(signed(ENTRY_BITS), name=f"b_{lane}")
        exact = Signal(signed(PRODUCT_BITS + 1), name=f"exact_z_{lane}")
        z_3, z_4, z_5 = (Signal(signed(Z_BITS), name=f"z_{lane}_{k}") for k in (3, 4, 5))
        segment = [Signal(SEGMENT_BITS, name=f"segment_{lane}_{k}") for k in range(4, 9)]
        slope = Signal(signed(SLOPE_BITS), name=f"slope_{lane}")
        intercept_5 = Signal(signed(ENTRY_BITS), name=f"intercept_{lane}_5")
        intercept_6 = Signal(signed(ENTRY_BITS), name=f"intercept_{lane}_6")
        exact_code = Signal(signed(ENTRY_BITS + 2), name=f"exact_code_{lane}")
        code = Signal(signed(CODE_BITS), name=f"code_{lane}")
        gain_low, gain_high = partial_products(y, a[:GAIN_BITS])
        low = Signal(gain_low.shape(), name=f"gain_low_{lane}")
        high = Signal(gain_high.shape(), name=f"gain_high_{lane}")
        z_low, z_high = partial_products(z_5, slope)
        slope_low = Signal(z_low.shape(), name=f"slope_low_{lane}")
        slope_high = Signal(z_high.shape(), name=f"slope_high_{lane}")
        rounded = Signal(signed(ENTRY_BITS + 2), name=f"rounded_{lane}")
        m.d.comb += rounded.eq(shift_round(exact_code, self.code_shift))
        with m.If(self.en):
            m.d.sync += [
                low.eq(gain_low), high.eq(gain_high), b_1.eq(b),
                exact.eq(join_products(low, high) + b_1),
                z_3.eq(saturate(shift_round(exact, self.z_shift), Z_BITS)),
                z_4.eq(z_3), segment[0].eq(tree_sum(z_3 >= edge for edge in breaks)),
                z_5.eq(z_4), slope.eq(slopes[segment[0]]), intercept_5.eq(intercepts[segment[0]]),
                slope_low.eq(z_low), slope_high.eq(z_high), intercept_6.eq(intercept_5),
                exact_code.eq(join_products(slope_low, slope_high) + intercept_6),
                code.eq(
                    Mux(rounded < self.low, self.low, Mux(rounded > self.high, self.high, rounded))
                ),
                *(later.eq(earlier) for earlier, later in pairwise(segment)),
            ]  # fmt: skip
        return code, segment[-1]


class MaskedActivation(wiring.Component):
    """Change of the code that dy makes, in the segment given (`sim.activation.Activation.delta`).

    In: dy n*32 signed, gain n*48 (low 24 bits of an entry), segment n*3, correction n*16 signed
    (correction code of a closed loop, residue of a carrying one); static loop (index into
    `isa.LOOPS`), carry_bits, z_shift, code_shift (no less than carry_bits in a carrying loop),
    slopes 8*48.
    Out: delta n*9 signed, saturated, before the encoder; residue n*16 signed (0 unless carrying).
    """

    LATENCY = 7

    def __init__(self, config: HardwareConfig) -> None:
        self.lanes = n = config.group
        super().__init__(
            {
                "en": In(1),
                "dy": In(n * RAW_BITS), "gain": In(n * ENTRY_BITS), "segment": In(n * SEGMENT_BITS),
                "correction": In(n * CODE_BITS), "loop": In(2), "carry_bits": In(4),
                "z_shift": In(6), "code_shift": In(6), "slopes": In(SEGMENTS * ENTRY_BITS),
                "delta": Out(n * DELTA_BITS), "residue": Out(n * CODE_BITS),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Stages: two of A*dy, dz and slope, two of slope*dz, shift and correction, carry."""
        m = Module()
        n = self.lanes
        carry = Signal(4)
        shift = Signal(6)
        m.d.comb += [
            carry.eq(Mux(self.loop == CARRY, self.carry_bits, 0)),
            shift.eq(self.code_shift - carry),
        ]
        slopes = Array(v[:SLOPE_BITS].as_signed() for v in lanes_of(self.slopes, SEGMENTS))
        words = zip(
            lanes_of(self.dy, n), lanes_of(self.gain, n), lanes_of(self.segment, n),
            lanes_of(self.correction, n), strict=True,
        )  # fmt: skip
        deltas, residues = [], []
        for i, (dy, gain, segment, correction) in enumerate(words):
            delta, residue = self._lane(
                m, i, dy, gain, segment.as_unsigned(), correction, slopes, shift, carry
            )
            deltas.append(delta)
            residues.append(residue)
        m.d.comb += [self.delta.eq(Cat(deltas)), self.residue.eq(Cat(residues))]
        return m

    def _lane(
        self, m: Module, lane: int, dy: Value, gain: Value, segment: Value, correction: Value,
        slopes: Array, shift: Signal, carry: Signal,
    ) -> tuple[Signal, Signal]:  # fmt: skip
        """Pipeline of one lane; returns its delta and residue registers."""
        exact = Signal(signed(PRODUCT_BITS), name=f"exact_dz_{lane}")
        dz = Signal(signed(Z_BITS), name=f"dz_{lane}")
        segments = [Signal(SEGMENT_BITS, name=f"segment_{lane}_{k}") for k in (1, 2)]
        slope = Signal(signed(SLOPE_BITS), name=f"slope_{lane}")
        corrections = [
            Signal(signed(CODE_BITS), name=f"correction_{lane}_{k}") for k in range(1, 6)
        ]
        product = Signal(signed(Z_BITS + SLOPE_BITS), name=f"product_{lane}")
        change = Signal(signed(Z_BITS + SLOPE_BITS + 1), name=f"change_{lane}")
        delta = Signal(signed(DELTA_BITS), name=f"delta_{lane}")
        residue = Signal(signed(CODE_BITS), name=f"residue_{lane}")
        gain_low, gain_high = partial_products(dy, gain[:GAIN_BITS])
        low = Signal(gain_low.shape(), name=f"gain_low_{lane}")
        high = Signal(gain_high.shape(), name=f"gain_high_{lane}")
        dz_low, dz_high = partial_products(dz, slope)
        slope_low = Signal(dz_low.shape(), name=f"slope_low_{lane}")
        slope_high = Signal(dz_high.shape(), name=f"slope_high_{lane}")
        with m.If(self.en):
            m.d.sync += [
                low.eq(gain_low), high.eq(gain_high),
                segments[0].eq(segment), segments[1].eq(segments[0]),
                corrections[0].eq(Mux(self.loop == OPEN, 0, correction)),
                *(b.eq(a) for a, b in pairwise(corrections)),
                exact.eq(join_products(low, high)),
                dz.eq(saturate(shift_round(exact, self.z_shift), Z_BITS)),
                slope.eq(slopes[segments[1]]),
                slope_low.eq(dz_low), slope_high.eq(dz_high),
                product.eq(join_products(slope_low, slope_high)),
                change.eq(shift_round(product, shift) + corrections[-1]),
                delta.eq(saturate(shift_round(change, carry), DELTA_BITS)),
                # change less the rounded part: its lowest `carry` bits as a signed number.
                residue.eq(_signed_low_bits(change, carry)),
            ]  # fmt: skip
        return delta, residue


def _signed_low_bits(value: Value, count: Value) -> Value:
    """The `count` (0..15) lowest bits of a value, sign-extended from the highest of them."""
    spare = (CODE_BITS - count)[:4]
    shifted = (value[:CODE_BITS] << spare)[:CODE_BITS]
    return Mux(count == 0, 0, shifted.as_signed() >> spare)
