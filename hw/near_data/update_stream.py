"""UPDATE_STREAM and READ: y plus its change, sums for the statistics, codes for attention."""

from __future__ import annotations

from amaranth import Cat, Elaboratable, Module, Mux, Signal, Value, signed

from signmask.hw.near_data.control import Stage
from signmask.hw.near_data.job import Job
from signmask.hw.near_data.lanes import lane_mask, ones
from signmask.hw.near_data.push import Push, gated
from signmask.hw.near_data.shape import Shape
from signmask.hw.rounding import saturate, shift_round
from signmask.hw.spec.engine_timing import FINISH_STAGE

RAW_BITS = 32
SUM_BITS = 48
STATISTIC_BITS = 25  # of y >> stat_shift: its squares add up within 48 bits
PRODUCT_BITS = 49


class UpdateStream(Elaboratable):
    """`raw` (n of 32 bits) and `deltas` of the word in stage START come in, y goes out as `words`
    two stages later, sums as `sums` with the last word of each image, in the last stage.
    `saturated` counts clamped values in valid lanes while `saturated_valid`."""

    START = 4
    WORDS = START + 2

    def __init__(self, shape: Shape, job: Job, stages: list[Stage], deltas: list[Signal]) -> None:
        self.shape, self.job, self.stages, self.deltas = shape, job, stages, deltas
        self.raw = Signal(RAW_BITS * shape.n)
        self.saturated_valid, self.saturated = Signal(), Signal(shape.n.bit_length())
        self._words = Signal(RAW_BITS * shape.n)
        self._sums = Signal(2 * 64 * shape.n)

    def pushes(self) -> tuple[Push, Push]:
        """Of y and of the sums."""
        n, field = self.shape.n, self.job.descriptor.field
        stage, late = self.stages[self.WORDS], self.stages[FINISH_STAGE["UPDATE_STREAM"]]
        size = Mux(field["y_bytes_0"][2], 4 * n, 2 * n)
        sums = Push.body(late, self._sums, gated(Mux(late.image_last, 16 * n, 0), late.valid))
        return Push.body(stage, self._words, size), sums

    def elaborate(self, platform: object) -> Module:
        """Add; saturate; shift; square; accumulate."""
        m = Module()
        n, field, stages = self.shape.n, self.job.descriptor.field, self.stages
        wide = field["y_bytes_0"][2]
        active = [stage.valid & self.job.stream for stage in stages]
        flags = []
        words = []
        lanes = []
        for i in range(n):
            total = Signal(signed(RAW_BITS + 1), name=f"sum_{i}")
            y = Signal(signed(RAW_BITS), name=f"y_{i}")
            shifted = Signal(signed(STATISTIC_BITS), name=f"statistic_{i}")
            held = Signal(signed(STATISTIC_BITS), name=f"held_{i}")
            square = Signal(2 * STATISTIC_BITS, name=f"square_{i}")
            sums = [Signal(signed(SUM_BITS), name=f"{name}_{i}") for name in ("first", "second")]
            clamped = Signal(signed(RAW_BITS), name=f"clamped_{i}")
            raw = self.raw[RAW_BITS * i : RAW_BITS * (i + 1)].as_signed()
            m.d.comb += clamped.eq(
                Mux(wide, saturate(total, RAW_BITS), saturate(total, RAW_BITS // 2))
            )
            with m.If(active[self.START]):
                m.d.sync += total.eq(raw + self.deltas[i])
            with m.If(active[self.START + 1]):
                m.d.sync += y.eq(clamped)
            with m.If(active[self.START + 2]):
                m.d.sync += shifted.eq(y >> field["stat_shift"])
            with m.If(active[self.START + 3]):
                m.d.sync += [square.eq(shifted * shifted), held.eq(shifted)]
            with m.If(active[self.START + 4]):
                fresh = stages[self.START + 4].image_first
                for target, value in zip(sums, (held, square), strict=True):
                    m.d.sync += target.eq(Mux(fresh, 0, target) + value)
            flags.append(clamped != total)
            words.append(y)
            lanes.append(sums)
        saturated = Signal(n)
        with m.If(active[self.START + 1]):
            m.d.sync += saturated.eq(Cat(flags) & lane_mask(stages[self.START + 1].limit, n))
        m.d.comb += [
            self._words.eq(
                Mux(wide, Cat(words), Cat(word[: RAW_BITS // 2] for word in words))
            ),
            self._sums.eq(
                Cat(Cat(sums[k], sums[k][-1].replicate(64 - SUM_BITS))
                    for k in range(2) for sums in lanes)
            ),
            self.saturated_valid.eq(active[self.WORDS]), self.saturated.eq(ones(saturated)),
        ]  # fmt: skip
        return m


class ReadCodes(Elaboratable):
    """`raw` of the word in stage START comes in, its int8 codes go out three stages later."""

    START = 2

    def __init__(self, shape: Shape, job: Job, stages: list[Stage]) -> None:
        self.shape, self.job, self.stages = shape, job, stages
        self.raw = Signal(RAW_BITS * shape.n)
        self._codes = Signal(8 * shape.n)

    def push(self) -> Push:
        """Of the codes."""
        n = self.shape.n
        size: Value = Mux(self.job.read, n, 0)
        return Push.body(self.stages[FINISH_STAGE["READ"]], self._codes, size)

    def elaborate(self, platform: object) -> Module:
        """Multiply; shift and round; saturate."""
        m = Module()
        field = self.job.descriptor.field
        active = [stage.valid & self.job.read for stage in self.stages]
        codes = []
        for i in range(self.shape.n):
            product = Signal(signed(PRODUCT_BITS), name=f"product_{i}")
            rounded = Signal(signed(PRODUCT_BITS), name=f"rounded_{i}")
            code = Signal(signed(8), name=f"code_{i}")
            raw = self.raw[RAW_BITS * i : RAW_BITS * (i + 1)].as_signed()
            with m.If(active[self.START]):
                m.d.sync += product.eq(raw * field["multiplier"])
            with m.If(active[self.START + 1]):
                m.d.sync += rounded.eq(shift_round(product, field["shift"]))
            with m.If(active[self.START + 2]):
                m.d.sync += code.eq(saturate(rounded, 8))
            codes.append(code)
        m.d.comb += self._codes.eq(Cat(codes))
        return m
