"""Operand addresses of MATMUL: row blocks, column blocks, kernel rows and columns, planes."""

from __future__ import annotations

from amaranth import Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out

from signmask.hw.array_positions import FIELD_BITS, SIZE_BITS, ArrayPositions, times
from signmask.hw.instruction import INSTRUCTION_BITS, fields
from signmask.hw.ports import address_bits
from signmask.hw.spec.config import HardwareConfig

COORDINATE_BITS = SIZE_BITS + 4  # signed: a position times the step, plus a kernel offset


def tap_layout(config: HardwareConfig) -> StructLayout:
    """What travels with a tap: first or last of its block; of the last block of its row block; of
    the last row block; a bit for each row that holds a position."""
    return StructLayout({"first": 1, "last": 1, "row_end": 1, "final": 1, "rows": config.rows})


class ArrayOperands(wiring.Component):
    """One tap after another, each when `advance` is 1.

    `valid` says that there is a tap; `address_r` is then the word of row r's operand, unless
    `outside[r]`: outside the image, or no position. The first tap is there `array_setup` + 2 cycles
    after `start`.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.config = config
        bits = address_bits(config.input_words)
        super().__init__(
            {
                "word": In(INSTRUCTION_BITS), "start": In(1), "advance": In(1), "valid": Out(1),
                "tap": Out(tap_layout(config)), "outside": Out(config.rows),
                **{f"address_{r}": Out(bits) for r in range(config.rows)},
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Loop counters, then line and column of each row, then their sum."""
        m = Module()
        m.submodules.positions = positions = ArrayPositions(self.config)
        bits = address_bits(self.config.input_words)
        f = fields("MATMUL", self.word)
        kept = {
            name: Signal(FIELD_BITS[name], name=name)
            for name in ("input", "input_stride", "in_width", "step", "planes", "kernel", "blocks",
                         "padding")
        }  # fmt: skip
        half, height, width = Signal(), Signal(SIZE_BITS + 1), Signal(SIZE_BITS + 1)
        running, fresh = Signal(), Signal()
        plane, block = Signal(FIELD_BITS["planes"]), Signal(FIELD_BITS["blocks"])
        kx, ky = Signal(FIELD_BITS["kernel"]), Signal(FIELD_BITS["kernel"])
        base = Signal(bits)  # of the plane
        line = Signal(bits + 1)  # words from a position's line to that of the kernel row
        m.d.comb += [positions.word.eq(self.word), positions.start.eq(self.start)]

        last_plane, last_x, last_y = Signal(), Signal(), Signal()
        last_tap, last_block = Signal(), Signal()
        first_line = Signal(bits + 1)
        m.d.comb += [
            last_plane.eq(plane + 1 == kept["planes"]),
            last_x.eq(last_plane & (kx + 1 == kept["kernel"])),
            last_y.eq(ky + 1 == kept["kernel"]),
            last_tap.eq(last_x & last_y),
            last_block.eq(block + 1 == kept["blocks"]),
            first_line.eq(-times(kept["in_width"], kept["padding"])),
            positions.step.eq(running & self.advance & last_tap & last_block),
        ]
        with m.If(self.start):
            m.d.sync += [signal.eq(f[name]) for name, signal in kept.items()]
            m.d.sync += [
                half.eq(f["upsample"][1]), height.eq(f["in_height"] << f["upsample"][1]),
                width.eq(f["in_width"] << f["upsample"][1]),
                plane.eq(0), kx.eq(0), ky.eq(0), block.eq(0), base.eq(f["input"]), fresh.eq(1),
                line.eq(-times(f["in_width"], f["padding"])),
            ]  # fmt: skip
        with m.Elif(running & self.advance):
            m.d.sync += [
                fresh.eq(last_tap),
                plane.eq(Mux(last_plane, 0, plane + 1)),
                base.eq(Mux(last_plane, kept["input"], base + kept["input_stride"])),
            ]
            with m.If(last_plane):
                m.d.sync += kx.eq(Mux(last_x, 0, kx + 1))
            with m.If(last_x):
                m.d.sync += [
                    ky.eq(Mux(last_y, 0, ky + 1)),
                    line.eq(Mux(last_y, first_line, line + kept["in_width"])),
                ]
            with m.If(last_tap):
                m.d.sync += block.eq(Mux(last_block, 0, block + 1))
        with m.If(positions.ready):
            m.d.sync += running.eq(1)
        with m.Elif(positions.step & ~positions.more):
            m.d.sync += running.eq(0)

        plane_base = Signal(bits)
        with m.If(self.advance):
            m.d.sync += self.valid.eq(running)
        with m.If(self.advance & running):
            m.d.sync += [
                self.tap.first.eq(fresh), self.tap.last.eq(last_tap),
                self.tap.row_end.eq(last_tap & last_block),
                self.tap.final.eq(last_tap & last_block & ~positions.more),
                self.tap.rows.eq(positions.valid), plane_base.eq(base),
            ]  # fmt: skip
        down, right = Signal(signed(SIZE_BITS)), Signal(signed(SIZE_BITS))
        m.d.comb += [down.eq(ky - kept["padding"]), right.eq(kx - kept["padding"])]
        for r in range(self.config.rows):
            row = getattr(positions, f"row_{r}")
            y = Signal(signed(COORDINATE_BITS), name=f"y_{r}")
            x = Signal(signed(COORDINATE_BITS), name=f"x_{r}")
            words = Signal(bits + 1, name=f"words_{r}")
            m.d.comb += [
                y.eq(times(row.y, kept["step"]) + down),
                x.eq(times(row.x, kept["step"]) + right),
                # An odd line of the enlarged image is the line before it.
                words.eq(row.base + line - Mux(half & y[0], kept["in_width"], 0)),
            ]
            line_word, column = Signal(bits, name=f"line_{r}"), Signal(bits, name=f"column_{r}")
            with m.If(self.advance & running):
                m.d.sync += [
                    line_word.eq(Mux(half, words >> 1, words)), column.eq(Mux(half, x >> 1, x)),
                    self.outside[r].eq(
                        ~positions.valid[r] | _beyond(y, height) | _beyond(x, width)
                    ),
                ]  # fmt: skip
            m.d.comb += getattr(self, f"address_{r}").eq(line_word + column + plane_base)
        return m


def _beyond(coordinate: Value, size: Value) -> Value:
    """Whether a signed coordinate is outside 0 .. size - 1."""
    return coordinate[-1] | (coordinate[:-1] >= size)
