"""Descriptor of the instruction in flight, as registers."""

from __future__ import annotations

from amaranth import Elaboratable, Module, Signal, signed

from signmask.hw.spec.isa import BOUNDARY_FIELDS, MAX_PARTS, STREAM_FIELDS

LINE_BYTES = 64  # of a descriptor that arrive together
ENTRY_BYTES = 8
ADDRESS = 40

_SHAPES: dict[str, object] = {
    "source": 12, "images": 8, "positions": 24, "planes": 8, "parts": 3, "loop": 2, "norm": 2,
    "spill": 1, "segment_bits": 2, "correction_bits": 4, "carry_bits": 4, "z_shift": 6,
    "code_shift": 6, "low": signed(8), "high": signed(8), "groups": 16, "count": 32, "epsilon": 48,
    "gain_shift": 6, "mean_shift": signed(7), "cal_stride": 24, "norm_stride": 24,
    "stat_shift": 4, "multiplier": signed(17), "shift": 6,
}  # fmt: skip
_PART_SHAPES = {"y_bytes": 3, "planes": 8, "channels": 16, "dy_bits": 5, "dy_chunk": 24}


def _shape(name: str) -> object:
    if name in _SHAPES:
        return _SHAPES[name]
    return _PART_SHAPES.get(name.rpartition("_")[0], ADDRESS)


def _home(name: str) -> str:
    """Register of a STREAM field: a stream is kept like a boundary of one part."""
    if name in ("planes", "y", "y_bytes", "sums", "channels", "dy", "dy_list", "dy_bits",
                "dy_chunk"):  # fmt: skip
        return f"{name}_0"
    return "source" if name == "stream" else name


class Descriptor(Elaboratable):
    """Registers `field[name]` of all BOUNDARY and STREAM fields; a STREAM's are those of part 0.

    `line` (64 bytes, the next of the descriptor) is taken with `valid`; `clear` goes back to the
    first. `stream` says which kind of descriptor it is.
    """

    def __init__(self) -> None:
        self.clear, self.valid, self.stream = Signal(), Signal(), Signal()
        self.line = Signal(8 * LINE_BYTES)
        names = dict.fromkeys((*BOUNDARY_FIELDS, *map(_home, STREAM_FIELDS)))
        self.field = {name: Signal(_shape(name), name=f"d_{name}") for name in names}

    def part(self, name: str) -> list[Signal]:
        """The registers of a field that each part has."""
        return [self.field[f"{name}_{part}"] for part in range(MAX_PARTS)]

    def elaborate(self, platform: object) -> Module:
        """Each line has its own registers."""
        m = Module()
        per_line = LINE_BYTES // ENTRY_BYTES
        index = Signal(range(-(-len(BOUNDARY_FIELDS) // per_line) + 1))
        with m.If(self.valid):
            m.d.sync += index.eq(index + 1)
            for fields, kind in ((BOUNDARY_FIELDS, ~self.stream), (STREAM_FIELDS, self.stream)):
                for line in range(-(-len(fields) // per_line)):
                    with m.If(kind & (index == line)):
                        for i, name in enumerate(fields[line * per_line : (line + 1) * per_line]):
                            home = _home(name) if fields is STREAM_FIELDS else name
                            m.d.sync += self.field[home].eq(self.line[64 * i : 64 * (i + 1)])
                            if name == "planes" and fields is STREAM_FIELDS:
                                m.d.sync += self.field["planes"].eq(self.line[64 * i : 64 * i + 8])
        with m.If(self.valid & self.stream):
            m.d.sync += self.field["parts"].eq(1)
        with m.If(self.clear):
            m.d.sync += index.eq(0)
        return m
