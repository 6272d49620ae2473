"""Pipelined division and square root: one result bit per stage, one operation per cycle."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class PipelinedDivider(wiring.Component):
    """(head * 2**quotient_bits + tail) // divisor of unsigned numbers, where head < divisor.

    What is presented with `valid` comes out with `valid_out` LATENCY = quotient_bits cycles later.
    A `constant_divisor` is held by its driver while divisions are under way.
    """

    def __init__(
        self, divisor_bits: int, quotient_bits: int, constant_divisor: bool = False
    ) -> None:
        self.divisor_bits, self.quotient_bits = divisor_bits, quotient_bits
        self.constant_divisor = constant_divisor
        self.LATENCY = quotient_bits
        super().__init__(
            {
                "valid": In(1), "head": In(divisor_bits), "tail": In(quotient_bits),
                "divisor": In(divisor_bits), "valid_out": Out(1), "quotient": Out(quotient_bits),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Each stage subtracts the divisor where it fits; quotient bits replace the tail's."""
        m = Module()
        valid, rest, digits, divisor = self.valid, self.head, self.tail, self.divisor
        for i in range(self.quotient_bits):
            shifted = Cat(digits[-1], rest)
            difference = Signal(self.divisor_bits + 1, name=f"difference_{i}")
            m.d.comb += difference.eq(shifted - divisor)
            fits = ~difference[-1]  # what fits leaves less than the divisor, so this is the borrow
            next_valid = Signal(name=f"valid_{i}")
            next_rest = Signal(self.divisor_bits, name=f"rest_{i}")
            next_digits = Signal(self.quotient_bits, name=f"digits_{i}")
            m.d.sync += next_valid.eq(valid)
            with m.If(valid):
                m.d.sync += [
                    next_rest.eq(Mux(fits, difference, shifted)),
                    next_digits.eq(Cat(fits, digits[:-1])),
                ]
                if not self.constant_divisor:
                    next_divisor = Signal(self.divisor_bits, name=f"divisor_{i}")
                    m.d.sync += next_divisor.eq(divisor)
            valid, rest, digits = next_valid, next_rest, next_digits
            if not self.constant_divisor:
                divisor = next_divisor
        m.d.comb += [self.valid_out.eq(valid), self.quotient.eq(digits)]
        return m


class PipelinedRoot(wiring.Component):
    """floor(sqrt(value)) of an unsigned value of 2*root_bits bits.

    What is presented with `valid` comes out with `valid_out` LATENCY = root_bits cycles later.
    """

    def __init__(self, root_bits: int) -> None:
        self.root_bits = self.LATENCY = root_bits
        super().__init__(
            {
                "valid": In(1), "value": In(2 * root_bits),
                "valid_out": Out(1), "root": Out(root_bits),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Each stage takes the next two bits of the value and finds one bit of the root."""
        m = Module()
        bits = self.root_bits
        valid, rest, root, value = self.valid, Const(0, 1), Const(0, 1), self.value
        for i in range(bits):
            # After i stages the root has i bits and the rest is at most twice the root.
            shifted = Cat(value[-2:], rest)
            trial = Cat(Const(1, 2), root)
            width = max(len(shifted), len(trial))
            difference = Signal(width + 1, name=f"difference_{i}")
            m.d.comb += difference.eq(shifted - trial)
            fits = ~difference[-1]
            next_valid = Signal(name=f"valid_{i}")
            next_rest = Signal(i + 2, name=f"rest_{i}")
            next_root = Signal(i + 1, name=f"root_{i}")
            m.d.sync += next_valid.eq(valid)
            with m.If(valid):
                m.d.sync += [
                    next_rest.eq(Mux(fits, difference, shifted)),
                    next_root.eq(Cat(fits, root[:i])),
                ]
                if i < bits - 1:
                    next_value = Signal(len(value) - 2, name=f"value_{i}")
                    m.d.sync += next_value.eq(value)
            valid, rest, root = next_valid, next_rest, next_root
            if i < bits - 1:
                value = next_value
        m.d.comb += [self.valid_out.eq(valid), self.root.eq(root)]
        return m
