"""Softmax over rows of attention scores, and normalisation of the product."""

from __future__ import annotations

from operator import add

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import memory

from signmask.hw.delays import delays
from signmask.hw.divider import PipelinedDivider
from signmask.hw.rounding import (
    join_products,
    lanes_of,
    partial_products,
    saturate,
    shift_round,
)
from signmask.hw.sfu.operation import RAW_BITS
from signmask.hw.sfu.rows import SIZE_BITS, RowOperation, RowWalk, pipelined_tree
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.numerics import (
    DELTA_BITS,
    RECIPROCAL_FRACTION,
    SOFTMAX_ENTRIES,
    SOFTMAX_FRACTION,
    exponential_table,
)
from signmask.hw.spec.timing import DIVIDE_CYCLES

CODE_BITS = 7
SUM_BITS = CODE_BITS + SIZE_BITS
RECIPROCAL_BITS = 24  # 2**30 // 127, the largest: every row's maximum has the code 127
MULTIPLIER_BITS = 17  # 16 unsigned bits as a signed number
CODE_STAGES = 5  # subtract, multiply (2), round, table
PRODUCT_STAGES = 7  # times reciprocal (2), round, multiply (2), round, zero and saturate


class Softmax(RowOperation):
    """Executes SOFTMAX: one walk finds each row's maximum, a second one, behind it, the codes.

    Codes leave as they are made; their sum goes through a pipelined divider to the row scratchpad.
    """

    def __init__(self, config: HardwareConfig) -> None:
        super().__init__(
            config, "SOFTMAX", ("accumulator", "addend", "operand", "row_write")
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Maxima, codes, sums and reciprocals."""
        m = Module()
        start, _, fields = self.latch(m)
        searching, encoding = RowWalk(self.config.group), RowWalk(self.config.group)
        m.submodules.searching, m.submodules.encoding = searching, encoding
        self.begin(m, start, searching, "keys", fields)
        m.d.comb += [
            encoding.rows.eq(fields["tokens"]),
            encoding.amount.eq(fields["keys"]),
        ]
        maximum = self._maximum(m, start, searching, encoding, fields["stride"])
        codes, flags = self._codes(m, start, encoding, maximum, fields)
        self._reciprocals(m, start, codes, flags)
        return m

    def _lanes_left(self, m: Module, walk: RowWalk, name: str) -> Signal:
        """Lanes with a key of the word whose data arrive, one bit each."""
        valid = Signal(self.config.group, name=name)
        with m.If(walk.active):
            m.d.sync += valid.eq(Cat(walk.left > i for i in range(self.config.group)))
        return valid

    def _maximum(
        self, m: Module, start: Value, walk: RowWalk, follower: RowWalk, stride: Value
    ) -> Signal:
        """Maximum of each row, held while the following walk's data of that row arrive."""
        lowest = Const(-(1 << (RAW_BITS - 1)), signed(RAW_BITS))
        valid = self._lanes_left(m, walk, "searched")
        m.d.comb += [
            self.accumulator.en.eq(walk.active),
            self.accumulator.addr.eq(
                self.address(m, start, "accumulator", walk.active, walk.last, stride)
            ),
        ]
        scores = [
            Mux(bit, score, lowest)
            for bit, score in zip(valid, lanes_of(self.accumulator.data, len(valid)), strict=True)
        ]
        word, levels, actives = pipelined_tree(m, scores, walk.active, _larger, "larger")
        firsts = delays(m, walk.first, levels + 1, "search_first")
        lasts = delays(m, walk.last, levels + 1, "search_last")
        running, maximum = Signal(signed(RAW_BITS)), Signal(signed(RAW_BITS))
        top = Mux(firsts[-1], word, _larger(running, word))
        with m.If(actives[-1]):
            m.d.sync += running.eq(top)
            with m.If(lasts[-1]):
                m.d.sync += maximum.eq(top)
        begun = Signal()
        m.d.comb += follower.start.eq(lasts[levels] & ~begun)
        with m.If(start):
            m.d.sync += begun.eq(0)
        with m.Elif(follower.start):
            m.d.sync += begun.eq(1)
        return maximum

    def _codes(
        self, m: Module, start: Value, walk: RowWalk, maximum: Signal, fields: dict[str, Signal]
    ) -> tuple[list[Value], dict[str, list[Value]]]:
        """Codes of each word, written to the input scratchpad, and flags by age in cycles."""
        n = self.config.group
        flags = {
            name: delays(m, getattr(walk, name), CODE_STAGES + 1, f"code_{name}")
            for name in ("active", "first", "last", "final")
        }
        active = flags["active"]
        valid = delays(m, self._lanes_left(m, walk, "encoded"), CODE_STAGES, "encoded")[-1]
        m.d.comb += [
            self.addend.en.eq(walk.active),
            self.addend.addr.eq(
                self.address(m, start, "accumulator", walk.active, walk.last, fields["stride"])
            ),
        ]
        m.submodules.table = table = memory.Memory(
            shape=CODE_BITS, depth=SOFTMAX_ENTRIES, init=exponential_table()
        )
        multiplier = Cat(fields["multiplier"], Const(0, 1)).as_signed()
        codes: list[Value] = []
        for i, score in enumerate(lanes_of(self.addend.data, n)):
            below = Signal(signed(RAW_BITS + 2), name=f"below_{i}")
            low = Signal(signed(RAW_BITS + MULTIPLIER_BITS + 1), name=f"low_{i}")
            high = Signal.like(low, name=f"high_{i}")
            product = Signal.like(low, name=f"product_{i}")
            index = Signal(range(SOFTMAX_ENTRIES), name=f"index_{i}")
            rounded = Signal.like(low, name=f"rounded_{i}")
            m.d.comb += rounded.eq(shift_round(product, fields["shift"]))
            first, second = partial_products(below, multiplier)
            with m.If(active[1]):
                m.d.sync += below.eq(maximum - score)
            with m.If(active[2]):
                m.d.sync += [low.eq(first), high.eq(second)]
            with m.If(active[3]):
                m.d.sync += product.eq(join_products(low, high))
            with m.If(active[4]):
                m.d.sync += index.eq(
                    Mux(rounded[len(index) :].any(), SOFTMAX_ENTRIES - 1, rounded[: len(index)])
                )
            port = table.read_port()
            m.d.comb += [port.addr.eq(index), port.en.eq(active[5])]
            codes.append(port.data & valid[i].replicate(CODE_BITS))
        m.d.comb += [
            self.operand.en.eq(active[-1]),
            self.operand.addr.eq(
                self.address(m, start, "input", active[-1], flags["last"][-1], fields["tokens"])
            ),
            self.operand.data.eq(Cat(Cat(c, Const(0, DELTA_BITS - CODE_BITS)) for c in codes)),
            self.operand.lanes.eq(active[-1].replicate(n)),
        ]
        return codes, flags

    def _reciprocals(
        self, m: Module, start: Value, codes: list[Value], flags: dict[str, list[Value]]
    ) -> None:
        """Sum of a row's codes, its reciprocal, and the end of the instruction."""
        word, levels, actives = pipelined_tree(m, codes, flags["active"][-1], add, "sum", arrived=0)
        firsts = delays(m, flags["first"][-1], levels, "sum_first")
        lasts = delays(m, flags["last"][-1], levels, "sum_last")
        total, divide = Signal(SUM_BITS), Signal()
        m.d.sync += divide.eq(lasts[-1])
        with m.If(actives[-1]):
            m.d.sync += total.eq(Mux(firsts[-1], 0, total) + word)
        m.submodules.divider = divider = PipelinedDivider(SUM_BITS, RECIPROCAL_BITS)
        finals = delays(m, flags["final"][-1], levels + 1 + DIVIDE_CYCLES, "final")
        written = divider.valid_out
        m.d.comb += [
            divider.valid.eq(divide),
            divider.head.eq(1 << (RECIPROCAL_FRACTION - RECIPROCAL_BITS)),
            divider.tail.eq(0),
            divider.divisor.eq(total),
            self.row_write.en.eq(written),
            self.row_write.addr.eq(self.walk(m, start, "rows", written)),
            self.row_write.data.eq(divider.quotient),
            self.row_write.lanes.eq(written),
            self.done.eq(finals[-1]),
        ]


class NormaliseRows(RowOperation):
    """Executes NORMALISE_ROWS: `numerics.attention_code` of each lane, one word per cycle."""

    def __init__(self, config: HardwareConfig) -> None:
        super().__init__(config, "NORMALISE_ROWS", ("accumulator", "result", "row"))

    def elaborate(self, platform: object) -> Module:
        """The pipeline of PRODUCT_STAGES behind product and reciprocal."""
        m = Module()
        n = self.config.group
        start, _, fields = self.latch(m)
        m.submodules.words = words = RowWalk(1)
        self.begin(m, start, words, "planes", fields)
        active = delays(m, words.active, PRODUCT_STAGES + 1, "active")
        last = delays(m, words.last, PRODUCT_STAGES + 1, "last")
        final = delays(m, words.final, PRODUCT_STAGES + 1, "final")
        m.d.comb += [
            self.accumulator.en.eq(words.active),
            self.accumulator.addr.eq(
                self.address(m, start, "accumulator", words.active, words.last, fields["stride"])
            ),
            self.row.en.eq(words.active),
            self.row.addr.eq(self.walk(m, start, "rows", words.last)),
        ]
        reciprocal = Cat(self.row.data[:RECIPROCAL_BITS], Const(0, 1)).as_signed()
        multiplier = Cat(fields["multiplier"], Const(0, 1)).as_signed()
        codes = []
        mean_bits = RAW_BITS + RECIPROCAL_BITS + 1 - (RECIPROCAL_FRACTION - SOFTMAX_FRACTION) + 1
        for i, product in enumerate(lanes_of(self.accumulator.data, n)):
            low = Signal(signed(RAW_BITS + RECIPROCAL_BITS + 1), name=f"scaled_low_{i}")
            high, scaled = Signal.like(low, name=f"scaled_high_{i}"), Signal.like(low)
            mean = Signal(signed(mean_bits), name=f"mean_{i}")
            low_2 = Signal(signed(mean_bits + MULTIPLIER_BITS), name=f"code_low_{i}")
            high_2, exact = Signal.like(low_2, name=f"code_high_{i}"), Signal.like(low_2)
            rounded = Signal(signed(len(exact) + 1), name=f"rounded_{i}")
            code = Signal(signed(8), name=f"code_{i}")
            first, second = partial_products(product, reciprocal)
            with m.If(active[1]):
                m.d.sync += [low.eq(first), high.eq(second)]
            with m.If(active[2]):
                m.d.sync += scaled.eq(join_products(low, high))
            with m.If(active[3]):
                m.d.sync += mean.eq(
                    shift_round(scaled, Const(RECIPROCAL_FRACTION - SOFTMAX_FRACTION))
                )
            first, second = partial_products(mean, multiplier)
            with m.If(active[4]):
                m.d.sync += [low_2.eq(first), high_2.eq(second)]
            with m.If(active[5]):
                m.d.sync += exact.eq(join_products(low_2, high_2))
            with m.If(active[6]):
                m.d.sync += rounded.eq(shift_round(exact, fields["shift"]))
            with m.If(active[7]):
                m.d.sync += code.eq(saturate(rounded + fields["zero"], 8))
            codes.append(code)
        target = self.address(m, start, "output", active[-1], last[-1], fields["output_stride"])
        m.d.comb += [
            self.result.en.eq(active[-1]),
            self.result.addr.eq(target),
            self.result.data.eq(
                Cat(Cat(code, code[-1].replicate(RAW_BITS - len(code))) for code in codes)
            ),
            self.result.lanes.eq(active[-1].replicate(n)),
            self.done.eq(final[-1]),
        ]
        return m


def _larger(a: Value, b: Value) -> Value:
    return Mux(a > b, a, b)
