"""Accumulator words of MATMUL: where a finished block's sums come from and go to."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.array_positions import FIELD_BITS
from signmask.hw.instruction import INSTRUCTION_BITS, fields
from signmask.hw.pe import ACCUMULATOR_BITS
from signmask.hw.ports import ReadPort, WritePort, address_bits
from signmask.hw.spec.config import HardwareConfig


def result_words(config: HardwareConfig) -> int:
    """Accumulator words that the columns of one row fill, at least 1."""
    return max(1, config.columns // config.group)


class ArrayResults(wiring.Component):
    """Reads the accumulators that a block adds to, and writes its sums.

    A block's pass is in the stage before the PEs' last when `fetch` is 1 (`first`: read) and moves
    on to the next block when it is `last` (`row_end`: to the next row block), with a bit for each
    row that holds a position in `rows`. `initial_r` has the old values of row r's columns one cycle
    later. The sums `total_r` of that block are written two cycles later, `done` with the `final`.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.config = config
        n, rows, depth = config.group, config.rows, config.accumulator_words
        width = n * ACCUMULATOR_BITS
        row_width = config.columns * ACCUMULATOR_BITS
        members = {
            "word": In(INSTRUCTION_BITS), "start": In(1), "accumulate": Out(1), "fetch": In(1),
            "first": In(1), "last": In(1), "row_end": In(1), "final": In(1), "rows": In(rows),
            "done": Out(1),
        }  # fmt: skip
        for r in range(rows):
            members |= {f"initial_{r}": Out(row_width), f"total_{r}": In(row_width)}
        for i in range(rows * result_words(config)):
            members[f"accumulator_read_{i}"] = Out(ReadPort(depth, width))
            members[f"accumulator_write_{i}"] = Out(WritePort(depth, width, n))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """Counters over the blocks, and two stages that carry them to the write."""
        m = Module()
        config, f = self.config, fields("MATMUL", self.word)
        words, parts = result_words(config), max(1, config.group // config.columns)
        bits = address_bits(config.accumulator_words)
        at, row_at = Signal(bits), Signal(bits)  # row 0's word: of this block, of its first block
        stride = Signal(FIELD_BITS["accumulator_stride"])
        part = Signal(range(parts))  # which columns of the word, when they are fewer than it holds
        last_part = part == parts - 1
        with m.If(self.start):
            m.d.sync += [
                at.eq(f["accumulator"]), row_at.eq(f["accumulator"]), part.eq(0),
                stride.eq(f["accumulator_stride"]), self.accumulate.eq(f["accumulate"]),
            ]  # fmt: skip
        with m.Elif(self.fetch & self.last):
            m.d.sync += part.eq(Mux(self.row_end | last_part, 0, part + 1))
            with m.If(self.row_end):
                m.d.sync += [at.eq(row_at + config.rows), row_at.eq(row_at + config.rows)]
            with m.Elif(last_part):
                m.d.sync += at.eq(at + stride * words)

        ended = self.fetch & self.last
        now = self._delayed(
            m, "now", at, part, ended, self.row_end, ended & self.row_end & self.final, self.rows
        )
        then_at, then_part, write, ending, done, rows = self._delayed(m, "then", *now)
        m.d.comb += self.done.eq(done)
        clear = ending & ~self.accumulate
        chosen = [then_part == p for p in range(parts)]
        lanes = [Mux(clear, Cat(chosen[: p + 1]).any(), chosen[p]) for p in range(parts)]
        per_part, row_bits = config.group // parts, config.columns * ACCUMULATOR_BITS
        for r in range(config.rows):
            total, initial = getattr(self, f"total_{r}"), getattr(self, f"initial_{r}")
            reads = []
            for w in range(words):
                read = getattr(self, f"accumulator_read_{r * words + w}")
                target = getattr(self, f"accumulator_write_{r * words + w}")
                m.d.comb += [
                    read.en.eq(self.fetch & self.first & self.accumulate & self.rows[r]),
                    read.addr.eq(at + (stride * w + r)),
                    target.en.eq(write & rows[r]),
                    target.addr.eq(then_at + (stride * w + r)),
                    target.lanes.eq(Cat(lane.replicate(per_part) for lane in lanes)),
                ]
                reads.append(read.data)
                slice_bits = min(config.columns, config.group) * ACCUMULATOR_BITS
                values = total[w * slice_bits : (w + 1) * slice_bits]
                m.d.comb += target.data.eq(
                    values if parts == 1 else Cat(Mux(c, values, 0) for c in chosen)
                )
            with m.Switch(now[1]):
                for p in range(parts):
                    with m.Case(p) if p < parts - 1 else m.Default():
                        m.d.comb += initial.eq(Cat(reads)[p * row_bits : (p + 1) * row_bits])
        return m

    def _delayed(self, m: Module, name: str, *values: Value) -> list[Signal]:
        """The values one cycle later."""
        registers = []
        for i, value in enumerate(values):
            register = Signal(value.shape(), name=f"{name}_{i}")
            m.d.sync += register.eq(value)
            registers.append(register)
        return registers
