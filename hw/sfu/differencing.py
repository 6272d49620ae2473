"""Back end of the encoders: differences of codes, what a group sends of them, and its counts."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.delays import delays
from signmask.hw.group_encoder import GroupEncoder
from signmask.hw.ports import DeltaEvent
from signmask.hw.rounding import lanes_of, tree_sum
from signmask.hw.sfu.operation import RAW_BITS
from signmask.hw.sfu.word_counter import WORD, Word
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.numerics import DELTA_BITS
from signmask.hw.spec.timing import DIFFERENCE_STAGES

CODE_BITS = 16


class Differencing(wiring.Component):
    """Codes to operands, one word per cycle, LATENCY cycles later.

    In: word (where the codes lie; all zero without any), codes n*16 and previous n*16, signed; per
    instruction: difference, spill, source and the valid lanes of its last plane.
    Out: operand n*9, the code or the encoded difference from `previous`; result n*32, the code or
    `previous` and what was sent; event, the counts of differences.
    """

    LATENCY = DIFFERENCE_STAGES

    def __init__(self, config: HardwareConfig) -> None:
        self.lanes = n = config.group
        self.encoder = GroupEncoder(config, CODE_BITS + 1)
        super().__init__(
            {
                "word": In(WORD), "codes": In(n * CODE_BITS), "previous": In(n * CODE_BITS),
                "difference": In(1), "spill": In(1), "source": In(12), "valid_lanes": In(8),
                "operand": Out(n * DELTA_BITS), "result": Out(n * RAW_BITS),
                "event": Out(DeltaEvent()),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Stages: subtract and classify; select outliers (both the encoder's); add and count."""
        m = Module()
        n = self.lanes
        m.submodules.encoder = encoder = self.encoder
        ages = delays(m, self.word, self.LATENCY, "word")
        codes, previous = lanes_of(self.codes, n), lanes_of(self.previous, n)
        m.d.comb += [
            encoder.en.eq(ages[0].valid | ages[1].valid),
            encoder.spill.eq(self.spill),
            encoder.deltas.eq(
                Cat((a - b)[: CODE_BITS + 1] for a, b in zip(codes, previous, strict=True))
            ),
        ]
        results, operands = [], []
        for lane, sent in enumerate(lanes_of(encoder.sent, n)):
            # Without a difference the code passes in the place of the previous one.
            base = [Signal(signed(CODE_BITS), name=f"base_{lane}_{i}") for i in (1, 2)]
            result = Signal(signed(CODE_BITS + 1), name=f"result_{lane}")
            operand = Signal(signed(DELTA_BITS), name=f"operand_{lane}")
            with m.If(ages[0].valid):
                m.d.sync += base[0].eq(Mux(self.difference, previous[lane], codes[lane]))
            with m.If(ages[1].valid):
                m.d.sync += base[1].eq(base[0])
            with m.If(ages[2].valid):
                m.d.sync += [
                    result.eq(base[1] + Mux(self.difference, sent, 0)),
                    operand.eq(Mux(self.difference, sent, base[1])),
                ]
            results.append(Cat(result, result[-1].replicate(RAW_BITS - len(result))))
            operands.append(operand)
        m.d.comb += [self.result.eq(Cat(results)), self.operand.eq(Cat(operands))]
        self._count(m, ages[2])
        return m

    def _count(self, m: Module, word: Word) -> None:
        """Classes of a word's valid lanes, registered beside the result."""
        n, encoder, event = self.lanes, self.encoder, self.event
        valid = Cat(~word.last_plane | (lane < self.valid_lanes) for lane in range(n))
        mask = Signal(n)
        zeros = Cat(~sent.any() for sent in lanes_of(encoder.sent, n))
        zero, outlier, clipped, elements = (
            self._ones(m, name, mask & bits)
            for name, bits in (
                ("zeros", zeros), ("outliers", encoder.outlier),
                ("clips", encoder.clipped), ("all", valid),
            )
        )  # fmt: skip
        m.d.comb += mask.eq(valid)
        m.d.sync += event.valid.eq(word.valid & self.difference)
        with m.If(word.valid):
            m.d.sync += [
                event.index.eq(self.source), event.zero.eq(zero), event.outlier.eq(outlier),
                event.clipped.eq(clipped), event.elements.eq(elements),
                event.inlier.eq(elements - zero - outlier),
            ]  # fmt: skip

    def _ones(self, m: Module, name: str, bits: Value) -> Signal:
        """Number of bits that are set."""
        count = Signal(range(self.lanes + 1), name=name)
        m.d.comb += count.eq(tree_sum(bits))
        return count
