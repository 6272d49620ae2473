"""Output positions of the rows of the array: counters that step a whole row block at once."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out

from signmask.hw.instruction import INSTRUCTION_BITS, fields
from signmask.hw.ports import address_bits
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import FORMATS
from signmask.hw.spec.timing import array_setup

FIELD_BITS = {name: bits for name, bits, _ in FORMATS["MATMUL"].fields}
SIZE_BITS = FIELD_BITS["out_width"]


def position_layout(config: HardwareConfig) -> StructLayout:
    """One output position: column, row, image (past the last one: no position), and `base`, the
    first word of its line of operands without padding, times `upsample`."""
    return StructLayout(
        {
            "x": SIZE_BITS,
            "y": SIZE_BITS,
            "image": max(FIELD_BITS["images"], (config.rows - 1).bit_length()) + 1,
            "base": address_bits(config.input_words) + 1,
        }
    )


@dataclass(frozen=True)
class _Space:
    """What carries between the parts of a position."""

    width: Value
    height: Value
    line: Value  # added to base for each output row
    image: Value  # added to base for each image, less its lines

    def add(self, m: Module, a: Value, b: Value, name: str) -> Value:
        """a + b, both less than a whole image: carries go from column to row to image."""
        x, y = Signal(SIZE_BITS + 1, name=f"{name}_x"), Signal(SIZE_BITS + 1, name=f"{name}_y")
        wrap_x, wrap_y = Signal(name=f"{name}_wrap_x"), Signal(name=f"{name}_wrap_y")
        total = Signal.like(a, name=name)
        m.d.comb += [
            x.eq(a.x + b.x),
            wrap_x.eq(x >= self.width),
            total.x.eq(Mux(wrap_x, x - self.width, x)),
            y.eq(a.y + b.y + wrap_x),
            wrap_y.eq(y >= self.height),
            total.y.eq(Mux(wrap_y, y - self.height, y)),
            total.image.eq(a.image + b.image + wrap_y),
            total.base.eq(
                (a.base + b.base) + (Mux(wrap_x, self.line, 0) + Mux(wrap_y, self.image, 0))
            ),
        ]
        return total


class ArrayPositions(wiring.Component):
    """Positions of all rows: `start` comes with the instruction `word`; after `array_setup` more
    cycles, the last of which shows `ready` (with none, that of the start), row r holds position r.
    Each `step` then moves all rows on by the number of rows.

    `valid` has a bit per row that holds a position, `more` says that row 0 will have one after the
    next step. Positions add like numbers of mixed radix, so 1, 2, 4 ... rows come from doubling.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.config = config
        layout = position_layout(config)
        super().__init__(
            {
                "word": In(INSTRUCTION_BITS), "start": In(1), "step": In(1), "ready": Out(1),
                "more": Out(1), "valid": Out(config.rows),
                **{f"row_{r}": Out(layout) for r in range(config.rows)},
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """One adder per row, one that doubles."""
        m = Module()
        rows, setup = self.config.rows, array_setup(self.config)
        layout = position_layout(self.config)
        f = fields("MATMUL", self.word)
        width, height = Signal(SIZE_BITS), Signal(SIZE_BITS)
        images = Signal(FIELD_BITS["images"])
        line, image = Signal(layout["base"].width), Signal(layout["base"].width)
        space = _Space(width, height, line, image)
        stride = Signal(layout)  # 1, 2, 4 ... positions, in the end `rows` of them
        turn = Signal(max(1, setup))  # one-hot: which bit of the rows' numbers is being added
        line_words = times(f["in_width"], f["step"])
        lines_left = (f["in_height"] << f["upsample"][1]) - times(f["out_height"], f["step"])
        image_words = f["in_width"] * lines_left
        one_column, one_row = f["out_width"] == 1, f["out_height"] == 1
        jump = Mux(one_column, line_words, 0) + Mux(one_column & one_row, image_words, 0)
        with m.If(self.start):
            m.d.sync += [
                width.eq(f["out_width"]), height.eq(f["out_height"]), images.eq(f["images"]),
                line.eq(line_words), image.eq(image_words), turn.eq(int(setup > 0)),
                stride.x.eq(~one_column), stride.y.eq(one_column & ~one_row),
                stride.image.eq(one_column & one_row), stride.base.eq(jump),
            ]  # fmt: skip
        with m.Elif(turn.any()):
            m.d.sync += [turn.eq(turn << 1), stride.eq(space.add(m, stride, stride, "doubled"))]
        m.d.comb += self.ready.eq(turn[-1] if setup else self.start)

        block: Value = stride
        if rows & (rows - 1):
            block = Signal(layout)
            self._advance(m, space, rows, block, turn, stride, 0)
        move = Signal(layout)
        m.d.comb += move.eq(Mux(turn.any(), stride, block))
        for r in range(rows):
            row = getattr(self, f"row_{r}")
            following = self._advance(m, space, r, row, turn, move, self.step)
            m.d.comb += self.valid[r].eq(row.image < images)
            if r == 0:
                m.d.comb += self.more.eq(following.image < images)
        return m

    def _advance(
        self, m: Module, space: _Space, number: int, position: Value, turn: Value, move: Value,
        step: Value | int,
    ) -> Value:  # fmt: skip
        """Add `move` for the bits of `number` as they have their turn, and at each `step`."""
        turns = [turn[j] for j in range(len(turn)) if number >> j & 1]
        following = space.add(m, position, move, f"following_{number}")
        with m.If(self.start):
            m.d.sync += position.eq(0)
        with m.Elif(Cat(*turns, step).any()):
            m.d.sync += position.eq(following)
        return following


def times(value: Value, factor: Value) -> Value:
    """value * factor, for a factor of two bits, with one adder."""
    return Mux(factor[0], value, 0) + (Mux(factor[1], value, 0) << 1)
