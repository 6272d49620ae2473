"""REQUANTISE and QUANTISE: accumulators onto a grid, in place, with sums of the result."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, signed

from signmask.hw.delays import delays
from signmask.hw.instruction import fields, opcode
from signmask.hw.rounding import (
    join_products,
    lanes_of,
    partial_products,
    shift_round,
    tree_sum,
)
from signmask.hw.sfu.operation import ENTRY_BITS, RAW_BITS, Operation
from signmask.hw.sfu.word_counter import WORD, Word, WordCounter
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import FORMATS
from signmask.hw.spec.timing import REQUANTISE_FILL, SUMS_FILL

MULTIPLIER_BITS = 17  # an int16 of a parameter entry, or 16 unsigned bits of QUANTISE
SPLIT = 8
PRODUCT_BITS = RAW_BITS + MULTIPLIER_BITS
OFFSET_BITS = ENTRY_BITS + 2  # a table less another, plus a raw value
EXACT_BITS = OFFSET_BITS + 1
UNSCALED = 63  # shift that takes the accumulator as it is
QUANTISE = FORMATS["QUANTISE"].opcode
CODE_BITS = 8
HALF = RAW_BITS // 2


class Requantise(Operation):
    """Executes REQUANTISE and QUANTISE; before saturation (to 1..32 bits) values are exact.

    Stages by age of the word: 0 addresses; 1, 2 product; 3 round; 4 add; 5 saturate; 6 write; with
    sums 6 shift; 7, 8 square; 9 add; 10 write.
    """

    AGES = REQUANTISE_FILL - 1
    SUM_AGES = AGES + SUMS_FILL

    def __init__(self, config: HardwareConfig) -> None:
        self.lanes = config.group
        super().__init__(
            config,
            "REQUANTISE",
            (
                "accumulator", "addend", "result", "parameter_0", "parameter_1", "parameter_2",
                "parameter_write_0", "parameter_write_1", "saturated",
            ),
        )  # fmt: skip
        self.executes = ("REQUANTISE", "QUANTISE")

    def elaborate(self, platform: object) -> Module:
        """Control, addresses and the lanes."""
        m = Module()
        start, _, f = self.latch(m)
        factor = self._quantise(m, start, f)
        top, shift, unscaled = Signal(signed(RAW_BITS)), Signal(6), Signal()
        ones = Const((1 << RAW_BITS) - 1, RAW_BITS)
        m.d.comb += [
            top.eq((ones >> (RAW_BITS - f["bits"])[:6])[1:]),  # the largest number of `bits` bits
            unscaled.eq((f["shift"] == UNSCALED) & ~factor[1]),
            shift.eq(Mux(unscaled, 0, f["shift"])),
        ]
        f |= {"top": top, "scale_shift": shift, "unscaled": unscaled}
        ages = self._words(m, start, f)
        self._addresses(m, start, f, ages)
        values, changed, totals, squares = [], [], [], []
        for lane in range(self.lanes):
            value, saturated = self._value(m, lane, f, factor, ages)
            total, square = self._sums(m, lane, value, f, ages)
            values.append(value)
            changed.append(saturated)
            totals.append(total)
            squares.append(square)
        self._count(m, f, changed, ages[self.AGES])
        m.d.comb += [
            self.result.data.eq(Cat(values)),
            self.parameter_write_0.data.eq(Cat(totals)),
            self.parameter_write_1.data.eq(Cat(squares)),
            self.done.eq(Mux(f["has_sums"], ages[self.SUM_AGES].final, ages[self.AGES].final)),
        ]
        return m

    def _quantise(self, m: Module, start: Signal, f: dict[str, Signal]) -> tuple[Signal, Signal]:
        """QUANTISE is a REQUANTISE to 8 bits: (its multiplier, whether it replaces the table's)."""
        multiplier, replaces = Signal(signed(MULTIPLIER_BITS)), Signal()
        quantise = fields("QUANTISE", self.instruction.payload)
        with m.If(start):
            m.d.sync += replaces.eq(0)
            with m.If(opcode(self.instruction.payload) == QUANTISE):
                m.d.sync += [
                    replaces.eq(1), multiplier.eq(quantise["multiplier"]),
                    f["shift"].eq(quantise["shift"]), f["bits"].eq(CODE_BITS),
                    *(f[name].eq(0) for name in ("has_table", "has_last", "has_add", "has_sums")),
                ]  # fmt: skip
        return multiplier, replaces

    def _words(self, m: Module, start: Signal, f: dict[str, Signal]) -> list[Word]:
        """The word of each age; those beyond the write exist with sums only."""
        m.submodules.counter = counter = WordCounter()
        word = fields(self.name, self.instruction.payload)
        single = opcode(self.instruction.payload) == QUANTISE
        m.d.comb += [
            counter.start.eq(start), counter.words.eq(word["words"]),
            counter.planes.eq(Mux(single, 1, word["planes"])),
            counter.images.eq(Mux(single, 1, word["images"])),
        ]  # fmt: skip
        ages = delays(m, counter.word, self.AGES, "word")
        summed = Signal(WORD)
        with m.If(f["has_sums"]):
            m.d.comb += summed.eq(ages[-1])
        return ages + delays(m, summed, SUMS_FILL, "summed")[1:]

    def _addresses(self, m: Module, start: Signal, f: dict[str, Signal], ages: list[Word]) -> None:
        """Reads of age 0, parameters at the first word of a frame only; writes of the last ages."""
        now, write, sums = ages[0], ages[self.AGES], ages[self.SUM_AGES]
        m.d.comb += [
            self.accumulator.en.eq(now.valid),
            self.accumulator.addr.eq(self.walk(m, start, "accumulator", now.valid)),
            self.addend.en.eq(now.valid & f["has_add"]),
            self.addend.addr.eq(self.walk(m, start, "add", now.valid)),
        ]
        for port, field in (
            (self.parameter_0, "multiplier"), (self.parameter_1, "now"), (self.parameter_2, "last"),
        ):  # fmt: skip
            m.d.comb += [
                port.en.eq(now.first),
                port.addr.eq(self.walk(m, start, field, now.plane_end)),
            ]
        result = self.walk(m, start, "accumulator", write.valid, name="result")
        pair = self.walk(m, start, "sums", sums.last, 2)
        m.d.comb += [
            self.result.en.eq(write.valid), self.result.addr.eq(result),
            self.result.lanes.eq(write.valid.replicate(self.lanes)),
        ]  # fmt: skip
        for i, port in enumerate((self.parameter_write_0, self.parameter_write_1)):
            m.d.comb += [
                port.en.eq(sums.last), port.addr.eq(pair + i),
                port.lanes.eq(sums.last.replicate(self.lanes)),
            ]  # fmt: skip

    def _value(
        self, m: Module, lane: int, f: dict[str, Signal], factor: tuple[Signal, Signal],
        ages: list[Word],
    ) -> tuple[Signal, Signal]:  # fmt: skip
        """(result, whether it was saturated) of one lane, at the age of the write."""
        n = self.lanes
        multiplier, replaces = factor
        raw, addend = (lanes_of(port.data, n)[lane] for port in (self.accumulator, self.addend))
        scale, now, last = (
            lanes_of(port.data, n)[lane]
            for port in (self.parameter_0, self.parameter_1, self.parameter_2)
        )
        raw_2 = Signal(signed(RAW_BITS), name=f"raw_{lane}")
        offset = [Signal(signed(OFFSET_BITS), name=f"offset_{lane}_{i}") for i in (2, 3, 4)]
        product = Signal(signed(PRODUCT_BITS), name=f"product_{lane}")
        rounded = Signal(signed(PRODUCT_BITS), name=f"rounded_{lane}")
        exact = Signal(signed(EXACT_BITS), name=f"exact_{lane}")
        value = Signal(signed(RAW_BITS), name=f"value_{lane}")
        changed = Signal(name=f"changed_{lane}")
        chosen = Mux(replaces, multiplier, scale[: MULTIPLIER_BITS - 1].as_signed())
        product_low, product_high = partial_products(raw, chosen, SPLIT)
        low = Signal(product_low.shape(), name=f"low_{lane}")
        high = Signal(product_high.shape(), name=f"high_{lane}")
        with m.If(ages[1].valid):
            m.d.sync += [
                low.eq(product_low), high.eq(product_high), raw_2.eq(raw),
                offset[0].eq(
                    Mux(f["has_table"], now, 0) - Mux(f["has_last"], last, 0)
                    + Mux(f["has_add"], addend, 0)
                ),
            ]  # fmt: skip
        with m.If(ages[2].valid):
            m.d.sync += [
                product.eq(Mux(f["unscaled"], raw_2, join_products(low, high, SPLIT))),
                offset[1].eq(offset[0]),
            ]
        with m.If(ages[3].valid):
            m.d.sync += [
                rounded.eq(shift_round(product, f["scale_shift"])),
                offset[2].eq(offset[1]),
            ]
        with m.If(ages[4].valid):
            m.d.sync += exact.eq(rounded + offset[2])
        with m.If(ages[5].valid):
            top = f["top"]
            above, below = exact > top, exact < ~top
            free = f["bits"] == 0
            m.d.sync += [
                value.eq(Mux(free, exact, Mux(above, top, Mux(below, ~top, exact)))),
                changed.eq(~free & (above | below)),
            ]
        return value, changed

    def _sums(
        self, m: Module, lane: int, value: Signal, f: dict[str, Signal], ages: list[Word]
    ) -> tuple[Signal, Signal]:
        """(sum of y', sum of its squares) of one lane, modulo 2**48, at the last age."""
        y = [Signal(signed(RAW_BITS), name=f"y_{lane}_{i}") for i in (7, 8, 9)]
        bits = 2 * RAW_BITS - HALF
        low = Signal(RAW_BITS, name=f"square_low_{lane}")
        cross = Signal(signed(RAW_BITS), name=f"square_cross_{lane}")
        high = Signal(RAW_BITS, name=f"square_high_{lane}")
        square = Signal(bits, name=f"square_{lane}")
        total = Signal(bits, name=f"total_{lane}")
        squares = Signal(bits, name=f"squares_{lane}")
        head, rest = y[0][HALF:].as_signed(), y[0][:HALF]
        with m.If(ages[6].valid & f["has_sums"]):
            m.d.sync += y[0].eq(value >> f["stat_shift"])
        with m.If(ages[7].valid):
            m.d.sync += [
                low.eq(rest * rest), cross.eq(head * rest), high.eq(head * head), y[1].eq(y[0])
            ]  # fmt: skip
        with m.If(ages[8].valid):
            m.d.sync += [
                square.eq(low + cross.shift_left(HALF + 1) + high[:HALF].shift_left(RAW_BITS)),
                y[2].eq(y[1]),
            ]
        with m.If(ages[9].valid):
            m.d.sync += [
                total.eq(Mux(ages[9].first, 0, total) + y[2]),
                squares.eq(Mux(ages[9].first, 0, squares) + square),
            ]
        return total, squares

    def _count(self, m: Module, f: dict[str, Signal], changed: list[Signal], word: Word) -> None:
        """Saturated lanes of a word, padding of the last plane apart."""
        count = Signal(range(self.lanes + 1))
        m.d.comb += count.eq(
            tree_sum(
                bit & (~word.last_plane | (lane < f["lanes"])) for lane, bit in enumerate(changed)
            )
        )
        with m.If(word.valid & (count != 0)):
            m.d.comb += [
                self.saturated.valid.eq(1), self.saturated.index.eq(f["stream"]),
                self.saturated.count.eq(count),
            ]  # fmt: skip
