"""PREPARE: segments, correction codes and gains of a boundary; residues after a dense step."""

from __future__ import annotations

from amaranth import Cat, Const, Elaboratable, Module, Mux, Signal, Value, signed

from signmask.hw.activation import RawActivation
from signmask.hw.near_data import shape as s
from signmask.hw.near_data.control import Stage
from signmask.hw.near_data.job import Job
from signmask.hw.near_data.lanes import before, compact, lane_mask, ones, pack, unpack
from signmask.hw.near_data.push import Push, gated
from signmask.hw.near_data.shape import Shape
from signmask.hw.near_data.tables import ENTRY_BITS, TableLoader
from signmask.hw.rounding import lanes_of, saturate
from signmask.hw.spec.numerics import DELTA_BITS

START = 2  # stage of y and the constants
CODED = START + RawActivation.LATENCY  # of code and segment, of x^ and the segments held
COMPARED = CODED + 1
WORDS = COMPARED + 2  # of corrections
GAINS = START + 1
CORRECTION_BYTES = 2


class Prepare(Elaboratable):
    """`raw` and `constants` (two table words) belong to the word in stage START, the chunks `x_hat`
    and `segment` to that in stage CODED. `changes` counts segments that differ from those held, in
    valid lanes, while `changes_valid`."""

    def __init__(self, shape: Shape, job: Job, stages: list[Stage], tables: TableLoader) -> None:
        self.shape, self.job, self.stages, self.tables = shape, job, stages, tables
        n = shape.n
        self.raw = Signal(32 * n)
        self.constants = [Signal(ENTRY_BITS * n, name=f"constant_{i}") for i in range(2)]
        self.x_hat, self.segment = Signal(16 * n), Signal(8 * shape.packed(8))
        self.changes_valid, self.changes = Signal(), Signal(n.bit_length())
        self._segments = Signal(8 * shape.packed(8))
        self._area = Signal(8 * shape.packed(1 + s.CORRECTION_BITS))
        self._list, self._list_bytes = Signal(16 * n), Signal(range(2 * n + 1))
        self._gains = Signal(32 * n)

    def pushes(self) -> tuple[Push, Push, Push, Push]:
        """Of correction areas, segments, correction lists or zero residues, and gains."""
        n, job = self.shape.n, self.job
        late, early = self.stages[WORDS], self.stages[GAINS]
        closed = gated(job.prepare, job.closed)
        area = Mux(
            closed, self.shape.packed(1) + job.descriptor.field["correction_bits"] * (n // 8), 0
        )
        body = ~late.gain
        list_ = Push(
            late, gated(self._list, job.closed),
            gated(Mux(job.closed, self._list_bytes, job.correction_bytes), body),
            late.head & body & Mux(job.closed, late.plane_first, late.first),
            body & Mux(job.closed, late.plane_last, late.last),
        )  # fmt: skip
        gains = Push(
            early, self._gains, Mux(early.gain, 4 * n, 0), early.head & early.gain_first,
            early.gain & early.last,
        )  # fmt: skip
        segments = Push.body(self.stages[COMPARED], self._segments, job.segment_bytes)
        return Push.body(late, self._area, area), segments, list_, gains

    def elaborate(self, platform: object) -> Module:
        """Activation; comparison; places of outliers; compaction."""
        m = Module()
        n, field, stages, job = self.shape.n, self.job.descriptor.field, self.stages, self.job
        m.submodules.activation = activation = RawActivation(self.shape.config)
        active = Signal()
        m.d.comb += [
            active.eq(job.prepare & Cat(stage.valid for stage in stages[START : CODED + 1]).any()),
            activation.en.eq(active), activation.y.eq(self.raw),
            activation.a.eq(self.constants[0]), activation.b.eq(self.constants[1]),
            activation.z_shift.eq(field["z_shift"]), activation.code_shift.eq(field["code_shift"]),
            activation.low.eq(field["low"]), activation.high.eq(field["high"]),
            activation.breaks.eq(self.tables.breaks), activation.slopes.eq(self.tables.slopes),
            activation.intercepts.eq(self.tables.intercepts),
        ]  # fmt: skip
        body = [stage.valid & ~stage.gain & job.prepare for stage in stages]
        segments = [activation.segment[3 * i : 3 * i + 3] for i in range(n)]
        widths = range(1, s.SEGMENT_BITS + 1)
        packed = pack(m, "segments", list(segments), field["segment_bits"], widths)
        held = unpack(m, "held", self.segment, field["segment_bits"], n, widths, False)
        differ = Signal(n)
        corrections = [Signal(signed(DELTA_BITS), name=f"correction_{i}") for i in range(n)]
        x_hat, codes = lanes_of(self.x_hat, n), lanes_of(activation.code, n)
        with m.If(body[CODED]):
            m.d.sync += self._segments.eq(packed)
            m.d.sync += differ.eq(
                Cat(a != b for a, b in zip(held, segments, strict=True))
                & lane_mask(stages[CODED].limit, n)
            )
            for target, code, x in zip(corrections, codes, x_hat, strict=True):
                m.d.sync += target.eq(saturate(code - x, DELTA_BITS))
        m.d.comb += [
            self.changes_valid.eq(body[COMPARED] & field["segment_bits"].any() & ~job.after_dense),
            self.changes.eq(ones(differ)),
        ]
        self._compress(m, corrections, body)
        self._gain(m)
        return m

    def _compress(self, m: Module, corrections: list[Signal], body: list[Value]) -> None:
        """Bitmap and inliers, and the outliers behind each other."""
        n, field = self.shape.n, self.job.descriptor.field
        bits = field["correction_bits"]
        flags = []
        for i, value in enumerate(corrections):
            flag = Signal(name=f"is_outlier_{i}")
            with m.Switch(bits):
                for k in range(1, s.CORRECTION_BITS + 1):
                    with m.Case(k):
                        head = value[k - 1 :]
                        m.d.comb += flag.eq(~(head.all() | ~head.any()))
            flags.append(flag)
        outliers, values = Signal(n), [Signal.like(v, name=f"late_{i}")
                                       for i, v in enumerate(corrections)]  # fmt: skip
        ranks = before(Cat(flags))
        places = [Signal(len(rank), name=f"place_{i}") for i, rank in enumerate(ranks)]
        with m.If(body[COMPARED] & self.job.closed):
            m.d.sync += outliers.eq(Cat(flags))
            m.d.sync += [a.eq(b) for a, b in zip(values, corrections, strict=True)]
            m.d.sync += [a.eq(b) for a, b in zip(places, ranks, strict=True)]
        inliers = [gated(value, ~outliers[i]) for i, value in enumerate(values)]
        packed = pack(m, "inliers", inliers, bits, range(1, s.CORRECTION_BITS + 1))
        with m.If(body[COMPARED + 1] & self.job.closed):
            m.d.sync += [
                self._area.eq(Cat(outliers, packed)),
                self._list.eq(compact(outliers, places, list(values), 8 * CORRECTION_BYTES)),
                self._list_bytes.eq(Cat(Const(0, 1), ones(outliers))),
            ]  # fmt: skip

    def _gain(self, m: Module) -> None:
        """A, or the mean of A of the two steps, as int32."""
        n, job = self.shape.n, self.job
        average = job.calibrated & ~job.closed
        gains = []
        for i in range(n):
            first, second = (word[ENTRY_BITS * i : ENTRY_BITS * i + 33].as_signed()
                             for word in self.constants)  # fmt: skip
            gain = Signal(signed(32), name=f"gain_{i}")
            mean = (first + second + 1) >> 1
            with m.If(self.stages[START].valid & self.stages[START].gain):
                m.d.sync += gain.eq(Mux(average, mean, first))
            gains.append(gain)
        m.d.comb += self._gains.eq(Cat(gains))
