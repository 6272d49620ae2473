"""What the instruction in flight does: facts that follow from opcode and descriptor."""

from __future__ import annotations

from amaranth import Array, Cat, Const, Elaboratable, Module, Mux, Signal, Value
from amaranth.utils import ceil_log2

from signmask.hw.axi import ADDRESS_BITS
from signmask.hw.near_data import shape as s
from signmask.hw.near_data.descriptor import Descriptor
from signmask.hw.near_data.shape import Shape
from signmask.hw.spec.isa import LOOPS, MAX_PARTS, NORMS

OPERATIONS = ("PREPARE", "UPDATE_CODES", "UPDATE_STREAM", "READ")
CLOSED, CARRY = LOOPS.index("closed"), LOOPS.index("carry")
AFFINE, TREND, CALIBRATED = (NORMS.index(name) for name in ("affine", "trend", "calibrated"))


class Job(Elaboratable):
    """Registers that are valid two cycles after `load`, when the descriptor is there.

    `prepare`, `codes`, `stream`, `read`: the operation (set before). `areas`, `lists`, `outs`:
    which streams it has, bits by the numbers in `shape`. `body`: it has frames of words.
    `both_steps`: segments take the constants of the last step, the gain is that of this one.
    """

    def __init__(self, shape: Shape, descriptor: Descriptor) -> None:
        self.shape, self.descriptor = shape, descriptor
        self.load, self.after_dense = Signal(), Signal()
        self.prepare, self.codes, self.stream, self.read = (
            Signal(name=name) for name in ("prepare", "codes", "stream", "read")
        )
        self.closed, self.carry, self.affine, self.trend, self.calibrated = (
            Signal(name=name) for name in ("closed", "carry", "affine", "trend", "calibrated")
        )
        self.areas, self.lists, self.outs = Signal(s.NOTHING + 1), Signal(2), Signal(s.OUTS)
        self.body, self.activation, self.zero = Signal(), Signal(), Signal()
        self.both_steps = Signal()
        self.plane_words = Signal(24)
        self.plane_list_bytes = Signal(32)  # of correction outliers, at most, per plane
        self.gain_words = Signal(16)
        n = shape.n
        self.raw_bytes = [Signal(range(4 * n + 1), name=f"raw_bytes_{i}") for i in range(MAX_PARTS)]
        self.dy_bytes = [
            Signal(range(shape.packed(s.DELTA_BITS + 1) + 1), name=f"dy_bytes_{i}")
            for i in range(MAX_PARTS)
        ]
        self.chunk_bytes = [Signal(32, name=f"chunk_bytes_{i}") for i in range(MAX_PARTS)]
        self.correction_bytes = Signal(range(shape.packed(s.RESIDUE_BITS + 1) + 1))
        self.segment_bytes = Signal(range(shape.packed(s.SEGMENT_BITS) + 1))

    def per_part(self, values: list[Signal], part: Value) -> Value:
        """The value of a part."""
        return Array(values)[part]

    def address(self, name: str, part: Value) -> Value:
        """The address field of a part."""
        return Array(self.descriptor.part(name))[part]

    def elaborate(self, platform: object) -> Module:
        """One stage for the products, one for what follows from them."""
        m = Module()
        field, n = self.descriptor.field, self.shape.n
        late = Signal()
        closed, carry = field["loop"] == CLOSED, field["loop"] == CARRY
        segments = field["segment_bits"].any()
        affine = field["norm"] == AFFINE
        m.d.sync += late.eq(self.load)
        with m.If(self.load):
            m.d.sync += [
                self.plane_words.eq(field["images"] * field["positions"]),
                self.gain_words.eq(field["planes"] * Mux(affine, 1, field["images"])),
                self.closed.eq(closed), self.carry.eq(carry), self.affine.eq(affine),
                self.trend.eq(field["norm"] == TREND),
                self.calibrated.eq(field["norm"] == CALIBRATED),
                self.both_steps.eq(~closed & segments),
                self.activation.eq(self.codes | self.prepare & (closed | segments)),
                self.zero.eq(
                    self.prepare & carry & field["carry_bits"].any() & field["residue"].any()
                    & self.after_dense
                ),
                self.segment_bytes.eq(_packed(n, field["segment_bits"])),
                self.correction_bytes.eq(
                    Mux(closed, _packed(n, field["correction_bits"] + 1),
                        _packed(n, field["carry_bits"]))
                ),
            ]  # fmt: skip
            for part in range(MAX_PARTS):
                wide = field[f"y_bytes_{part}"][2]
                m.d.sync += [
                    self.raw_bytes[part].eq(Mux(wide, 4 * n, 2 * n)),
                    self.dy_bytes[part].eq(_packed(n, field[f"dy_bits_{part}"] + 1)),
                    self.chunk_bytes[part].eq(
                        Mux(wide, field[f"dy_chunk_{part}"] * (4 * n),
                            field[f"dy_chunk_{part}"] * (2 * n))
                    ),
                ]  # fmt: skip
        delta, raw = self.codes | self.stream, Signal()
        area: dict[int, Value] = {
            s.DY: delta, s.CORRECTION: self.codes & (self.closed | self.carry), s.RAW: raw,
            s.X_HAT: self.codes | self.prepare & self.closed,
            s.SEGMENTS: segments & (self.codes | self.prepare & ~self.after_dense),
            # Frames that only zero residues read nothing.
            s.NOTHING: self.prepare & ~raw,
        }  # fmt: skip
        out: dict[int, Value] = {
            s.OUT_WORDS: ~self.prepare | self.closed,
            s.OUT_SEGMENTS: self.prepare & segments,
            s.OUT_LIST: self.prepare & self.closed | self.codes & self.carry | self.zero,
            s.OUT_TABLE: self.prepare | self.stream & field["sums_0"].any(),
        }
        m.d.comb += raw.eq(self.stream | self.read | self.prepare & (self.closed | segments))
        with m.If(late):
            m.d.sync += [
                self.plane_list_bytes.eq(self.plane_words * (2 * n)),
                self.areas.eq(Cat(area[i] for i in range(s.NOTHING + 1))),
                self.lists.eq(Cat(delta, self.codes & self.closed)),
                self.outs.eq(Cat(out[i] for i in range(s.OUTS))),
                self.body.eq(raw | delta | self.zero),
            ]
        return m

    def base(self, stream: int, part: Value) -> Value:
        """Address where a read area begins."""
        field = self.descriptor.field
        return {
            s.DY: self.address("dy", part),
            s.CORRECTION: Mux(self.closed, field["corrections"], field["residue"]),
            s.RAW: self.address("y", part),
            s.X_HAT: field["x_hat"],
            s.SEGMENTS: field["segments"],
            s.NOTHING: Const(0, ADDRESS_BITS),
        }[stream]

    def size(self, stream: int, part: Value) -> Value:
        """Bytes that a word of a read area takes."""
        return {
            s.DY: self.per_part(self.dy_bytes, part),
            s.CORRECTION: self.correction_bytes,
            s.RAW: self.per_part(self.raw_bytes, part),
            s.X_HAT: Const(2 * self.shape.n, ceil_log2(2 * self.shape.n + 1)),
            s.SEGMENTS: self.segment_bytes,
            s.NOTHING: Const(0, 1),
        }[stream]

    def goal(self, out: int) -> Value:
        """Address where a write stream begins."""
        field = self.descriptor.field
        words = Mux(
            self.codes, field["x_hat"],
            Mux(self.stream, field["y_0"], Mux(self.read, field["codes"], field["corrections"])),
        )  # fmt: skip
        return {
            s.OUT_WORDS: words,
            s.OUT_SEGMENTS: field["segments"],
            s.OUT_LIST: Mux(self.prepare & self.closed, field["correction_list"], field["residue"]),
            s.OUT_TABLE: Mux(self.prepare, field["gain"], field["sums_0"]),
        }[out]


def _packed(n: int, bits: Value) -> Value:
    """Bytes of n lanes of `bits` bits."""
    return bits * (n // 8)
