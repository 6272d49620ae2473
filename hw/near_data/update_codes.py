"""UPDATE_CODES: replays what the encoder of the accelerator sent and adds it to x^."""

from __future__ import annotations

from amaranth import Cat, Elaboratable, Module, Mux, Signal, Value

from signmask.hw.activation import MaskedActivation
from signmask.hw.group_encoder import GroupEncoder
from signmask.hw.near_data import shape as s
from signmask.hw.near_data.control import Stage
from signmask.hw.near_data.job import Job
from signmask.hw.near_data.lanes import pack, unpack
from signmask.hw.near_data.push import Push
from signmask.hw.near_data.shape import Shape
from signmask.hw.near_data.tables import TableLoader
from signmask.hw.rounding import lanes_of
from signmask.hw.spec.numerics import DELTA_BITS

CODE_BITS = 16
START = 4  # stage of dy, segment, correction and gain
CHANGED = START + MaskedActivation.LATENCY  # of the change and the residue
SENT = CHANGED + GroupEncoder.LATENCY  # of what was sent, and of x^
RESIDUE, WORDS = CHANGED + 1, SENT + 1  # of the pushes


class UpdateCodes(Elaboratable):
    """`deltas`, `corrections` (of a closed loop), `gain` (a table word), and the chunks `segment`
    and `residue` belong to the word in stage START, the chunk `x_hat` to that in stage SENT."""

    def __init__(
        self, shape: Shape, job: Job, stages: list[Stage], tables: TableLoader,
        deltas: list[Signal], corrections: list[Signal],
    ) -> None:  # fmt: skip
        self.shape, self.job, self.stages, self.tables = shape, job, stages, tables
        self.deltas, self.corrections = deltas, corrections
        n = shape.n
        self.gain = Signal(48 * n)
        self.segment = Signal(8 * shape.packed(8))
        self.residue = Signal(8 * shape.packed(16))
        self.x_hat = Signal(16 * n)
        self._words, self._residues = Signal(16 * n), Signal(n * s.RESIDUE_BITS)

    def pushes(self) -> tuple[Push, Push]:
        """Of x^ and of the residues."""
        size: Value = Mux(self.job.codes, 2 * self.shape.n, 0)
        return (
            Push.body(self.stages[WORDS], self._words, size),
            Push.body(self.stages[RESIDUE], self._residues, self.job.correction_bytes),
        )

    def elaborate(self, platform: object) -> Module:
        """Masked activation, group encoder, sum."""
        m = Module()
        config, n = self.shape.config, self.shape.n
        field = self.job.descriptor.field
        m.submodules.activation = activation = MaskedActivation(config)
        m.submodules.encoder = encoder = GroupEncoder(config, DELTA_BITS)
        stages = self.stages
        # Idle pipelines stand still.
        active = Signal()
        m.d.comb += active.eq(
            self.job.codes & Cat(stage.valid for stage in stages[START : SENT + 1]).any()
        )
        segments = unpack(
            m, "segment", self.segment, field["segment_bits"], n, range(1, s.SEGMENT_BITS + 1),
            False,
        )  # fmt: skip
        residues = unpack(
            m, "residue", self.residue, field["carry_bits"], n, range(1, s.RESIDUE_BITS + 1), True
        )
        extra = [Signal(CODE_BITS, name=f"extra_{i}") for i in range(n)]
        for value, correction, residue in zip(extra, self.corrections, residues, strict=True):
            m.d.comb += value.eq(Mux(self.job.closed, correction, residue))
        m.d.comb += [
            activation.en.eq(active), activation.dy.eq(Cat(self.deltas)),
            activation.gain.eq(self.gain), activation.segment.eq(Cat(segments)),
            activation.correction.eq(Cat(extra)), activation.loop.eq(field["loop"]),
            activation.carry_bits.eq(field["carry_bits"]),
            activation.z_shift.eq(field["z_shift"]), activation.code_shift.eq(field["code_shift"]),
            activation.slopes.eq(self.tables.slopes),
            encoder.en.eq(active), encoder.deltas.eq(activation.delta),
            encoder.spill.eq(field["spill"]),
        ]  # fmt: skip
        sums = [
            (x + sent)[:16]
            for x, sent in zip(lanes_of(self.x_hat, n), lanes_of(encoder.sent, n), strict=True)
        ]
        with m.If(stages[SENT].valid & self.job.codes):
            m.d.sync += self._words.eq(Cat(sums))
        packed = pack(
            m, "residues", lanes_of(activation.residue, n), field["carry_bits"],
            range(1, s.RESIDUE_BITS + 1),
        )  # fmt: skip
        with m.If(stages[CHANGED].valid & self.job.carry & self.job.codes):
            m.d.sync += self._residues.eq(packed)
        return m
