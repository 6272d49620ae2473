"""FP16 multiplier groups for the study of area: dense, and the paper's narrow and full lanes."""

from __future__ import annotations

from amaranth import ClockSignal, Instance, Module, Mux, ResetSignal, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.floating_point import BITS, Fp16Adder, Fp16Multiplier, NarrowMultiplier
from signmask.hw.ports import address_bits

OPERATION_STAGES = 2
ACCUMULATE_STAGES = 1  # the sum of the cycle before is an operand

MULTIPLIER = "signmask_fp16_multiplier"
ADDER = "signmask_fp16_adder"
ACCUMULATOR = "signmask_fp16_accumulator"
NARROW = "signmask_fp16_narrow_{bits}"


class FloatPe(wiring.Component):
    """Dot products of FP16 weights, accumulated in FP16; every operation rounds.

    With narrow_lanes = 0 there are `full_lanes` FP16 x FP16 multipliers, one for each weight.
    Otherwise each weight has a narrow multiplier with a signed integer of `integer_bits`, whose sum
    is multiplied by `scale`, and each of the full_lanes takes the weight at its `index`. A cycle
    with `en` takes one vector; the vector with `first` begins a new sum, which `result` holds
    `latency` enabled cycles later. Simulators of Amaranth need separate=False: without it the
    arithmetic is in instances of `modules`, each made once.
    """

    def __init__(
        self, narrow_lanes: int, full_lanes: int, integer_bits: int = 3, separate: bool = True
    ) -> None:
        if narrow_lanes < 0 or full_lanes < 1:
            raise ValueError(
                f"a PE of {narrow_lanes} narrow and {full_lanes} full lanes cannot be; give at "
                "least one full lane."
            )
        self.narrow_lanes, self.full_lanes = narrow_lanes, full_lanes
        self.integer_bits, self.separate = integer_bits, separate
        self.modules = {name: self._arithmetic(name) for name in self._names()} if separate else {}
        weights = narrow_lanes or full_lanes
        ports: dict[str, wiring.Member] = {
            "en": In(1), "first": In(1), "weights": In(weights * BITS),
            "values": In(full_lanes * BITS), "result": Out(BITS),
        }  # fmt: skip
        if narrow_lanes:
            ports |= {
                "integers": In(narrow_lanes * integer_bits), "scale": In(BITS),
                "indices": In(full_lanes * address_bits(weights)),
            }  # fmt: skip
        super().__init__(ports)

    @property
    def latency(self) -> int:
        """Enabled cycles from a vector to the sum that it is part of."""
        before = max(self._narrow_cycles(), self._full_cycles())
        merge = OPERATION_STAGES if self.narrow_lanes else 0
        return before + merge + ACCUMULATE_STAGES

    def _full_cycles(self) -> int:
        return OPERATION_STAGES * (1 + (self.full_lanes - 1).bit_length())

    def _narrow_cycles(self) -> int:
        """Multiplication, adder tree and scale."""
        if not self.narrow_lanes:
            return 0
        return OPERATION_STAGES * (2 + (self.narrow_lanes - 1).bit_length())

    def elaborate(self, platform: object) -> Module:
        """Lanes, one tree for each kind of lane, and the accumulator."""
        m = Module()
        weights = _slices(self.weights, BITS)
        values = _slices(self.values, BITS)
        if self.narrow_lanes:
            bits = self.integer_bits
            index_bits = address_bits(self.narrow_lanes)
            name = NARROW.format(bits=bits)
            narrow = [
                self._operate(m, name, integer.as_signed(), weight)
                for integer, weight in zip(_slices(self.integers, bits), weights, strict=True)
            ]
            # The scale belongs to a layer: it does not change while vectors are under way.
            scaled = self._operate(m, MULTIPLIER, self._tree(m, narrow), self.scale)
            words = Signal(len(self.weights))
            m.d.comb += words.eq(self.weights)
            chosen = [words.word_select(i, BITS) for i in _slices(self.indices, index_bits)]
            full = self._tree(
                m,
                [self._operate(m, MULTIPLIER, *pair) for pair in zip(values, chosen, strict=True)],
            )
            cycles = max(self._narrow_cycles(), self._full_cycles())
            total = self._operate(
                m, ADDER,
                self._delay(m, scaled, cycles - self._narrow_cycles()),
                self._delay(m, full, cycles - self._full_cycles()),
            )  # fmt: skip
        else:
            total = self._tree(
                m,
                [self._operate(m, MULTIPLIER, *pair) for pair in zip(values, weights, strict=True)],
            )
        first = self._delay(m, self.first, self.latency - ACCUMULATE_STAGES)
        before = Signal(BITS)
        after = self._operate(m, ACCUMULATOR, before, total)
        m.d.comb += [before.eq(Mux(first, 0, after)), self.result.eq(after)]
        return m

    def _names(self) -> list[str]:
        names = [MULTIPLIER, ADDER, ACCUMULATOR]
        return [*names, NARROW.format(bits=self.integer_bits)] if self.narrow_lanes else names

    def _arithmetic(self, name: str) -> Fp16Multiplier | Fp16Adder | NarrowMultiplier:
        if name == MULTIPLIER:
            return Fp16Multiplier(OPERATION_STAGES)
        if name in (ADDER, ACCUMULATOR):
            return Fp16Adder(OPERATION_STAGES if name == ADDER else ACCUMULATE_STAGES)
        return NarrowMultiplier(self.integer_bits, OPERATION_STAGES)

    def _operate(self, m: Module, name: str, a: Value, b: Value) -> Value:
        """Result of the operation `name`, its stages later."""
        if not self.separate:
            unit = self._arithmetic(name)
            m.submodules += unit
            m.d.comb += [unit.en.eq(self.en), unit.a.eq(a), unit.b.eq(b)]
            return unit.result
        result = Signal(BITS)
        m.submodules += Instance(
            name,
            i_clk=ClockSignal(), i_rst=ResetSignal(), i_en=self.en, i_a=a, i_b=b, o_result=result,
        )  # fmt: skip
        return result

    def _tree(self, m: Module, terms: list[Value]) -> Value:
        while len(terms) > 1:
            pairs = [
                self._operate(m, ADDER, *terms[i : i + 2]) for i in range(0, len(terms) - 1, 2)
            ]
            if len(terms) % 2:
                pairs.append(self._delay(m, terms[-1], OPERATION_STAGES))
            terms = pairs
        return terms[0]

    def _delay(self, m: Module, value: Value, cycles: int) -> Value:
        for _ in range(cycles):
            register = Signal(len(value))
            with m.If(self.en):
                m.d.sync += register.eq(value)
            value = register
        return value


def _slices(value: Value, bits: int) -> list[Value]:
    return [value[i : i + bits] for i in range(0, len(value), bits)]
