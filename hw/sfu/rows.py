"""Walks over rows of words that lie plane by plane, and trees over the lanes of a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amaranth import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.delays import delays
from signmask.hw.instruction import fields as fields_of
from signmask.hw.sfu.operation import Operation

SIZE_BITS = 16


class RowWalk(wiring.Component):
    """Words of `rows` rows, one per cycle from the cycle after `start`, a row's words in turn.

    A row takes `amount`, each word at most `unit` of it. While `active`: `left` of the row's amount
    from this word on, `first` and `last` word of a row, `final` word of all.
    """

    def __init__(self, unit: int) -> None:
        self.unit = unit
        super().__init__(
            {
                "start": In(1), "rows": In(SIZE_BITS), "amount": In(SIZE_BITS),
                "active": Out(1), "left": Out(SIZE_BITS), "first": Out(1), "last": Out(1),
                "final": Out(1),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Two counters."""
        m = Module()
        rows = Signal(SIZE_BITS)
        m.d.comb += [
            self.last.eq(self.active & (self.left <= self.unit)),
            self.final.eq(self.last & (rows == 1)),
        ]
        with m.If(self.start):
            m.d.sync += [
                self.active.eq(1), self.first.eq(1), rows.eq(self.rows), self.left.eq(self.amount)
            ]  # fmt: skip
        with m.Elif(self.active):
            m.d.sync += [self.first.eq(self.last), self.left.eq(self.left - self.unit)]
            with m.If(self.last):
                m.d.sync += [rows.eq(rows - 1), self.left.eq(self.amount)]
            with m.If(self.final):
                m.d.sync += self.active.eq(0)
        return m


class RowOperation(Operation):
    """An instruction over the words of rows, word k of row q at base + k * stride + q."""

    def begin(
        self, m: Module, start: Value, walk: RowWalk, amount: str, fields: dict[str, Signal]
    ) -> None:
        """Start a walk with the instruction, over its `tokens` rows of the field `amount`; `fields`
        are those of the latch, which has them one cycle later."""
        arriving = fields_of(self.name, self.instruction.payload)
        m.d.comb += [
            walk.start.eq(start),
            walk.rows.eq(Mux(start, arriving["tokens"], fields["tokens"])),
            walk.amount.eq(Mux(start, arriving[amount], fields[amount])),
        ]

    def address(
        self, m: Module, start: Value, base: str, valid: Value, last: Value, stride: Value
    ) -> Signal:
        """Address of each `valid` word in turn; `base` names a field of the instruction."""
        first = fields_of(self.name, self.instruction.payload)[base]
        row = Signal(len(first), name=f"{base}_row")
        offset = Signal(len(first), name=f"{base}_offset")
        with m.If(start):
            m.d.sync += [row.eq(first), offset.eq(0)]
        with m.Elif(valid):
            m.d.sync += offset.eq(offset + stride)
            with m.If(last):
                m.d.sync += [row.eq(row + 1), offset.eq(0)]
        address = Signal(len(first), name=f"{base}_address")
        m.d.comb += address.eq(row + offset)
        return address


def pipelined_tree(
    m: Module, values: list[Value], active: Value, join: Callable[[Any, Any], Value], name: str,
    arrived: int = 1,
) -> tuple[Value, int, list[Value]]:  # fmt: skip
    """(result, levels, enables) of a tree of `join` with a register behind every level; the values
    are there `arrived` cycles after `active`."""
    levels = (len(values) - 1).bit_length()
    actives = delays(m, active, levels + arrived, f"{name}_active")
    for level in range(levels):
        joined = []
        for i in range(0, len(values) - 1, 2):
            value = join(values[i], values[i + 1])
            joined.append(Signal(value.shape(), name=f"{name}_{level}_{i // 2}"))
            with m.If(actives[level + arrived]):
                m.d.sync += joined[-1].eq(value)
        if len(values) % 2:
            shape = values[-1].shape()
            joined.append(Signal(shape, name=f"{name}_{level}_{len(joined)}"))
            with m.If(actives[level + arrived]):
                m.d.sync += joined[-1].eq(values[-1])
        values = joined
    return values[0], levels, actives
