"""MULTIPLY: codes of the products of two encodings' codes."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Signal, signed

from signmask.hw.delays import delays
from signmask.hw.instruction import fields
from signmask.hw.rounding import (
    join_products,
    lanes_of,
    partial_products,
    saturate,
    shift_round,
)
from signmask.hw.sfu.operation import RAW_BITS, Operation
from signmask.hw.sfu.word_counter import WordCounter
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.timing import MULTIPLY_FILL

CODE_BITS = 8
FACTOR_BITS = CODE_BITS + 1  # of a code less its zero
MULTIPLIER_BITS = 17  # 16 unsigned bits as a signed number
PRODUCT_BITS = 2 * FACTOR_BITS
SCALED_BITS = PRODUCT_BITS + MULTIPLIER_BITS


class Multiply(Operation):
    """Executes MULTIPLY: `numerics.product_code` of each lane, one word per cycle; codes are the
    low 8 bits of their words. The target is the place of one source, or overlaps none."""

    AGES = MULTIPLY_FILL - 1

    def __init__(self, config: HardwareConfig) -> None:
        super().__init__(config, "MULTIPLY", ("accumulator", "addend", "result"))

    def elaborate(self, platform: object) -> Module:
        """Reads, the pipeline of each lane, writes."""
        m = Module()
        n = self.config.group
        start, _, f = self.latch(m)
        m.submodules.counter = counter = WordCounter()
        words = fields(self.name, self.instruction.payload)["words"]
        ages = delays(m, counter.word, self.AGES, "word")
        now, write = ages[0], ages[-1]
        valid = [age.valid for age in ages]
        multiplier = Cat(f["multiplier"], Const(0, 1)).as_signed()
        results = []
        for lane, (a, b) in enumerate(
            zip(lanes_of(self.accumulator.data, n), lanes_of(self.addend.data, n), strict=True)
        ):
            factors = [Signal(signed(FACTOR_BITS), name=f"factor_{lane}_{i}") for i in range(2)]
            product = Signal(signed(PRODUCT_BITS), name=f"product_{lane}")
            first, second = partial_products(product, multiplier)
            low = Signal(first.shape(), name=f"low_{lane}")
            high = Signal(second.shape(), name=f"high_{lane}")
            scaled = Signal(signed(SCALED_BITS), name=f"scaled_{lane}")
            rounded = Signal(signed(SCALED_BITS + 1), name=f"rounded_{lane}")
            code = Signal(signed(CODE_BITS), name=f"code_{lane}")
            with m.If(valid[1]):
                m.d.sync += [
                    factors[0].eq(a[:CODE_BITS].as_signed() - f["zero_a"]),
                    factors[1].eq(b[:CODE_BITS].as_signed() - f["zero_b"]),
                ]
            with m.If(valid[2]):
                m.d.sync += product.eq(factors[0] * factors[1])
            with m.If(valid[3]):
                m.d.sync += [low.eq(first), high.eq(second)]
            with m.If(valid[4]):
                m.d.sync += scaled.eq(join_products(low, high))
            with m.If(valid[5]):
                m.d.sync += rounded.eq(shift_round(scaled, f["shift"]))
            with m.If(valid[6]):
                m.d.sync += code.eq(saturate(rounded + f["zero"], CODE_BITS))
            results.append(Cat(code, code[-1].replicate(RAW_BITS - CODE_BITS)))
        m.d.comb += [
            counter.start.eq(start), counter.words.eq(words),
            counter.planes.eq(1), counter.images.eq(1),
            self.accumulator.en.eq(now.valid),
            self.accumulator.addr.eq(self.walk(m, start, "accumulator", now.valid)),
            self.addend.en.eq(now.valid),
            self.addend.addr.eq(self.walk(m, start, "other", now.valid)),
            self.result.en.eq(write.valid),
            self.result.addr.eq(self.walk(m, start, "output", write.valid)),
            self.result.data.eq(Cat(results)),
            self.result.lanes.eq(write.valid.replicate(n)),
            self.done.eq(write.final),
        ]  # fmt: skip
        return m
