"""First half of the load unit: instructions to areas of memory, and requests for their beats."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.axi import ADDRESS_BITS, AxiRequest
from signmask.hw.dma.bursts import SIZE_BITS, Bursts
from signmask.hw.dma.layouts import (
    TAKE_BITS,
    Landing,
    LoadShape,
    area_layout,
    counted_layout,
    goal_layout,
    landing_layout,
)
from signmask.hw.instruction import InstructionStream, fields, opcode
from signmask.hw.ports import MovedEvent
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import FORMATS, Step, Traffic
from signmask.hw.spec.timing import LOAD_SETUP

STEP_BITS = 16
TOKEN_BITS = 16

Fields = dict[str, Value]


class _Decoded:
    """What an instruction asks for: its (first) area and what it lands as, chunk bytes, bytes as
    count * factor * n / 8, and how further planes lie, and tokens of a plane that are areas of
    their own."""

    def __init__(self, shape: LoadShape) -> None:
        self.goal = Signal(goal_layout(shape), name="goal")
        self.chunk = Signal(range(shape.chunk + 1), name="chunk")
        self.count, self.factor = Signal(TAKE_BITS, name="count"), Signal(7, name="factor")
        self.address = Signal(ADDRESS_BITS, name="start")
        self.size = Signal(SIZE_BITS, name="bytes")
        self.planes, self.plane_stride = Signal(8, name="count_planes"), Signal(24, name="stride")
        self.tokens = Signal(TOKEN_BITS, name="count_tokens")
        self.token_stride = Signal(24, name="stride_tokens")
        self.base_step, self.kind = Signal(16, name="step_base"), Signal(4, name="traffic")
        self.waits = Signal(name="waits")


class _Areas:
    """The areas of an instruction, plane by plane and token by token: the present one's place in
    memory and in the scratchpads, and those of its plane's first token."""

    def __init__(self, shape: LoadShape) -> None:
        self.shape = shape
        self.area, self.address = Signal(goal_layout(shape), name="area"), Signal(ADDRESS_BITS)
        self.sub = Signal(range(max(2, shape.subs)))
        self.row = Signal(range(max(shape.columns, shape.lanes)))
        self.size, self.kind = Signal(SIZE_BITS), Signal(4)
        self.planes, self.plane_stride, self.base_step = Signal(8), Signal(24), Signal(16)
        self.tokens, self.token_stride = Signal(TOKEN_BITS), Signal(24)
        self.left = Signal(TOKEN_BITS)  # tokens of the plane
        self.plane_address, self.plane_base = Signal(ADDRESS_BITS), Signal(len(self.area.base))
        self.last = Signal()
        self.moved = Signal(SIZE_BITS)  # bytes of the areas before

    def begin(self, m: Module, d: _Decoded) -> None:
        """Take an instruction's first area."""
        m.d.sync += [
            self.area.eq(d.goal), self.address.eq(d.address), self.size.eq(d.size),
            self.kind.eq(d.kind), self.planes.eq(d.planes), self.plane_stride.eq(d.plane_stride),
            self.base_step.eq(d.base_step), self.tokens.eq(d.tokens), self.left.eq(d.tokens),
            self.token_stride.eq(d.token_stride), self.plane_address.eq(d.address),
            self.plane_base.eq(d.goal.base), self.moved.eq(0), self.sub.eq(0), self.row.eq(0),
        ]  # fmt: skip

    def advance(self, m: Module) -> None:
        """Go on to the next token, or to the next plane."""
        shape, area = self.shape, self.area
        keys = area.landing == Landing.KEYS
        m.d.sync += self.moved.eq(self.moved + self.size)
        with m.If(self.left != 1):
            m.d.sync += [
                self.left.eq(self.left - 1), self.address.eq(self.address + self.token_stride),
                self.row.eq(self.row + 1),
            ]  # fmt: skip
            with m.If(self.row == Mux(keys, shape.columns - 1, shape.lanes - 1)):
                m.d.sync += [self.row.eq(0), area.base.eq(area.base + Mux(keys, area.stride, 1))]
        with m.Else():
            address, base = Signal(ADDRESS_BITS), Signal(len(area.base))
            m.d.comb += [
                address.eq(self.plane_address + self.plane_stride),
                base.eq(self.plane_base + self.base_step),
            ]
            if shape.subs > 1:
                with m.If((area.landing == Landing.VALUES) & (self.sub != shape.subs - 1)):
                    m.d.comb += base.eq(self.plane_base)
                    m.d.sync += self.sub.eq(self.sub + 1)
                with m.Else():
                    m.d.sync += self.sub.eq(0)
            m.d.sync += [
                self.planes.eq(self.planes - 1), self.left.eq(self.tokens), self.row.eq(0),
                self.address.eq(address), self.plane_address.eq(address),
                area.base.eq(base), self.plane_base.eq(base),
            ]  # fmt: skip


class Requester(wiring.Component):
    """Takes load instructions; hands out each area to the stages behind and asks for its beats.

    An instruction is read (first cycle), its bytes are found (second; LOAD_OUTLIERS waits for
    `counted` there), then each of its areas (third, where requests begin in the next). Every area
    has the bus for as many cycles as it takes to land, so that no area waits for another's beats.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.config, self.shape = config, LoadShape(config)
        super().__init__(
            {
                "instruction": In(InstructionStream), "ar": Out(AxiRequest()),
                "areas": Out(stream.Signature(area_layout(self.shape))),
                "landings": Out(stream.Signature(landing_layout(self.shape))),
                "counted": In(stream.Signature(counted_layout())),
                "now": In(STEP_BITS), "last": In(STEP_BITS), "moved": Out(MovedEvent()),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Three stages, the first two apart from the requests of the instruction before."""
        m = Module()
        m.submodules.bursts = bursts = Bursts(self.config)
        wiring.connect(m, bursts.request, wiring.flipped(self.ar))
        word = Signal(256)
        remaining = Signal(SIZE_BITS)  # cycles for which the present area still has the bus
        present = _Areas(self.shape)
        m.d.comb += present.last.eq((present.planes == 1) & (present.left == 1))
        with m.If(remaining != 0):
            m.d.sync += remaining.eq(remaining - 1)
        with m.FSM():
            with m.State("ACCEPT"):
                m.d.comb += self.instruction.ready.eq(remaining <= LOAD_SETUP)
                with m.If(self.instruction.valid & self.instruction.ready):
                    m.d.sync += word.eq(self.instruction.payload)
                    m.next = "SIZE"
            with m.State("SIZE"):
                d = self._decode(m, word)
                present.begin(m, d)
                with m.If(~d.waits | self.counted.valid):
                    m.next = "AREA"
                m.d.comb += self.counted.ready.eq(d.waits)
            with m.State("AREA"):
                area, address, size = present.area, present.address, present.size
                beats, cycles = self._cost(m, area, address, size)
                hand, last = Signal(), present.last
                place = Cat(area, present.sub, present.row, last)
                m.d.comb += [
                    hand.eq(
                        (remaining <= 1) & bursts.idle & self.areas.ready & self.landings.ready
                    ),
                    bursts.start.eq(hand & (size != 0)), bursts.address.eq(address),
                    bursts.beats.eq(beats),
                    self.areas.valid.eq(hand & (size != 0)),
                    self.areas.payload.skip.eq(address), self.areas.payload.size.eq(size),
                    self.landings.valid.eq(hand), self.landings.payload.eq(place),
                    self.moved.valid.eq(hand & last), self.moved.kind.eq(present.kind),
                    self.moved.bytes.eq(present.moved + size),
                ]  # fmt: skip
                with m.If(hand):
                    m.d.sync += remaining.eq(cycles)
                    present.advance(m)
                    with m.If(last):
                        m.next = "ACCEPT"
        return m

    def _cost(self, m: Module, area: Value, address: Signal, size: Signal) -> tuple[Signal, Signal]:
        """Beats of an area, and the cycles that it has the bus (`timing.load_occupied`)."""
        low = (self.shape.beat - 1).bit_length()
        beats, cycles, landed = Signal(SIZE_BITS), Signal(SIZE_BITS), Signal(SIZE_BITS)
        offset = address[:low]
        first = Signal(range(2 * self.shape.chunk))
        m.d.comb += [
            beats.eq((size + offset + (self.shape.beat - 1)) >> low),
            first.eq(Mux(area.takes == 1, area.last, area.size) + offset),
        ]
        with m.If(area.landing == Landing.OUTLIERS):
            m.d.comb += landed.eq(area.takes + beats)
        with m.Else():
            later = Mux(first == 0, 0, (first - 1)[: len(first)] >> low)
            chunks, before = Signal(SIZE_BITS), Signal(SIZE_BITS)
            longest = Mux(chunks > beats, chunks, beats)
            m.d.comb += [
                chunks.eq(area.takes + later),
                landed.eq(Mux(before > longest, before, longest)),
            ]
            # A short last chunk may share its beat with the chunk before.
            with m.If(area.takes > 1):
                m.d.comb += before.eq(((offset + size - area.last - 1) >> low) + 2)
        m.d.comb += cycles.eq(Mux(landed > LOAD_SETUP, landed, LOAD_SETUP))
        return beats, cycles

    def _decode(self, m: Module, word: Signal) -> _Decoded:
        """What the instruction in `word` asks for."""
        d = _Decoded(self.shape)
        m.d.comb += [
            d.planes.eq(1), d.tokens.eq(1), d.goal.stride.eq(1),
            d.goal.size.eq(d.chunk), d.goal.last.eq(d.chunk), d.goal.takes.eq(d.count),
            d.size.eq((d.count * d.factor) * (self.shape.lanes // 8)),
        ]  # fmt: skip
        for_opcode = {
            name: getattr(self, f"_{name.lower()}") for name in FORMATS if name.startswith("LOAD_")
        }
        with m.Switch(opcode(word)):
            for name, decode in for_opcode.items():
                with m.Case(FORMATS[name].opcode):
                    f = fields(name, word)
                    m.d.comb += d.address.eq(f["address"] if "address" in f else f["list"])
                    decode(m, f, d)
        return d

    def _load_weights(self, m: Module, f: Fields, d: _Decoded) -> None:
        m.d.comb += [
            d.goal.landing.eq(Landing.WEIGHTS), d.goal.base.eq(f["weight"]),
            d.chunk.eq(self.shape.weight), d.count.eq(f["words"] * self.shape.columns),
            d.factor.eq(8), d.goal.takes.eq(f["words"] * self.shape.parts),
            d.kind.eq(Traffic.WEIGHTS.value),
        ]  # fmt: skip

    def _load_keys(self, m: Module, f: Fields, d: _Decoded) -> None:
        shape, n = self.shape, self.shape.lanes
        tokens = f["tokens"]
        rows = (tokens + (n - 1)) >> (n - 1).bit_length()
        per_chunk = shape.weight // n  # tokens
        places = (per_chunk - 1).bit_length()
        apart = f["token_stride"] != n
        m.d.comb += [
            d.goal.base.eq(f["weight"]), d.count.eq(Mux(apart, 1, tokens)), d.factor.eq(8),
            d.planes.eq(f["planes"]), d.plane_stride.eq(f["plane_stride"]),
            d.tokens.eq(Mux(apart, tokens, 1)), d.token_stride.eq(f["token_stride"]),
            d.kind.eq(Traffic.CODES.value),
        ]  # fmt: skip
        with m.If(f["transpose"]):
            m.d.comb += [
                d.goal.landing.eq(Landing.VALUES), d.chunk.eq(shape.column), d.goal.stride.eq(rows),
                d.goal.takes.eq(d.count * shape.blocks), d.base_step.eq(rows * shape.blocks),
            ]  # fmt: skip
        with m.Else():
            rest = (tokens - 1)[:places] if places else 0
            m.d.comb += [
                d.goal.landing.eq(Landing.WEIGHTS), d.chunk.eq(shape.weight),
                d.goal.last.eq((rest + 1) * n), d.goal.stride.eq(f["planes"]),
                d.goal.takes.eq((tokens + (per_chunk - 1)) >> places),
                d.base_step.eq(1),
            ]  # fmt: skip
            with m.If(apart):
                m.d.comb += [
                    d.goal.landing.eq(Landing.KEYS), d.chunk.eq(n), d.goal.last.eq(n),
                    d.goal.takes.eq(1),
                ]  # fmt: skip

    def _load_codes(self, m: Module, f: Fields, d: _Decoded) -> None:
        m.d.comb += [
            d.goal.landing.eq(Landing.INPUT), d.goal.base.eq(f["input"]),
            d.chunk.eq(self.shape.lanes), d.count.eq(f["words"]), d.factor.eq(8),
            d.kind.eq(f["kind"]),
        ]  # fmt: skip

    def _load_parameters(self, m: Module, f: Fields, d: _Decoded) -> None:
        step, entry = Signal(STEP_BITS), f["entry_bytes"]
        halves = entry[3]
        with m.Switch(f["step"]):
            with m.Case(Step.NOW.value):
                m.d.comb += step.eq(self.now)
            with m.Case(Step.LAST.value):
                m.d.comb += step.eq(self.last)
        m.d.comb += [
            d.address.eq(f["address"] + f["stride"] * step),
            d.goal.landing.eq(Landing.PARAMETER), d.goal.base.eq(f["parameter"]),
            d.goal.entry.eq(_log2(entry)), d.factor.eq(entry << 3), d.count.eq(f["words"]),
            d.chunk.eq(Mux(halves, 4, entry[:3]) * self.shape.lanes),
            d.goal.takes.eq(Mux(halves, f["words"] << 1, f["words"])),
            d.kind.eq(Traffic.PARAMETERS.value),
        ]  # fmt: skip

    def _load_raw(self, m: Module, f: Fields, d: _Decoded) -> None:
        entry = f["entry_bytes"]
        m.d.comb += [
            d.goal.landing.eq(Landing.RAW), d.goal.base.eq(f["accumulator"]),
            d.goal.entry.eq(_log2(entry)), d.factor.eq(entry << 3), d.count.eq(f["words"]),
            d.chunk.eq(entry[:3] * self.shape.lanes), d.kind.eq(f["kind"]),
        ]  # fmt: skip

    def _load_deltas(self, m: Module, f: Fields, d: _Decoded) -> None:
        m.d.comb += [
            d.goal.landing.eq(Landing.DELTAS), d.goal.base.eq(f["buffer"]),
            d.goal.to_mask.eq(f["to_mask"]), d.goal.bits.eq(f["inlier_bits"]),
            d.count.eq(f["words"]), d.factor.eq(f["inlier_bits"] + 1),
            d.chunk.eq(d.factor * (self.shape.lanes // 8)),
            d.kind.eq(f["kind"]),
        ]  # fmt: skip

    def _load_outliers(self, m: Module, f: Fields, d: _Decoded) -> None:
        held = self.counted.payload
        wide = f["wide_bytes"][2]
        m.d.comb += [
            d.goal.landing.eq(Landing.OUTLIERS), d.goal.base.eq(f["buffer"]),
            d.goal.to_mask.eq(f["to_mask"]), d.goal.entry.eq(Mux(wide, 2, 1)),
            d.goal.takes.eq(held.words), d.waits.eq(1), d.kind.eq(f["kind"]),
            d.size.eq(Mux(wide, held.outliers << 2, held.outliers << 1)),
        ]  # fmt: skip

    def _load_mask(self, m: Module, f: Fields, d: _Decoded) -> None:
        m.d.comb += [
            d.goal.landing.eq(Landing.SEGMENTS),
            d.goal.base.eq(f["mask"]), d.goal.bits.eq(f["bits"]), d.count.eq(f["words"]),
            d.factor.eq(f["bits"]), d.chunk.eq(d.factor * (self.shape.lanes // 8)),
            d.kind.eq(Traffic.MASKS.value),
        ]  # fmt: skip
        with m.If(f["residue"]):
            m.d.comb += [
                d.goal.landing.eq(Landing.RESIDUES), d.kind.eq(Traffic.CORRECTIONS.value)
            ]  # fmt: skip


def _log2(size: Value) -> Value:
    """Logarithm of 1, 2, 4 or 8."""
    return Cat(size[1] | size[3], size[2] | size[3])
