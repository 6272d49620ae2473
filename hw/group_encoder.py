"""Delta encoder of a group: which deltas travel wide, which are clipped."""

from __future__ import annotations

from amaranth import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.rounding import lanes_of, saturate
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.numerics import DELTA_BITS


class GroupEncoder(wiring.Component):
    """`numerics.encode_group` of one group per cycle.

    In: en (advance), deltas n*delta_bits signed, spill (of the word presented).
    Out, LATENCY cycles of `en` later: sent n*9 signed; clipped n, lanes whose outlier was clipped;
    outlier n, lanes that are outliers as sent.
    """

    LATENCY = 2

    def __init__(self, config: HardwareConfig, delta_bits: int = 17) -> None:
        self.lanes = n = config.group
        self.inlier_bits, self.full_lanes = config.inlier_bits, config.full_lanes
        super().__init__(
            {
                "en": In(1), "deltas": In(n * delta_bits), "spill": In(1),
                "sent": Out(n * DELTA_BITS), "clipped": Out(n), "outlier": Out(n),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Stages: saturate and classify; count the outliers to the left, clip."""
        m = Module()
        n = self.lanes
        values = [Signal(signed(DELTA_BITS), name=f"value_{i}") for i in range(n)]
        sent = [Signal(signed(DELTA_BITS), name=f"sent_{i}") for i in range(n)]
        outlier, spill = Signal(n), Signal()
        late = Signal(n)
        m.d.comb += [
            late.eq(
                Mux(
                    spill,
                    0,
                    outlier & Cat(more >= self.full_lanes for more in self._before(outlier)),
                )
            ),
            self.sent.eq(Cat(sent)),
        ]
        top = (1 << (self.inlier_bits - 1)) - 1
        flags = []
        with m.If(self.en):
            m.d.sync += [spill.eq(self.spill), self.clipped.eq(late)]
            for i, delta in enumerate(lanes_of(self.deltas, n)):
                narrow = saturate(delta, DELTA_BITS)
                head = narrow[self.inlier_bits - 1 :]
                flags.append(~(head.all() | ~head.any()))
                edge = Const(top, DELTA_BITS) ^ values[i][-1].replicate(DELTA_BITS)
                m.d.sync += [
                    values[i].eq(narrow),
                    sent[i].eq(Mux(late[i], edge.as_signed(), values[i])),
                ]
            m.d.sync += [outlier.eq(Cat(flags)), self.outlier.eq(outlier & ~late)]
        return m

    def _before(self, outlier: Signal) -> list:
        """Number of outliers in the lanes before each lane: a parallel prefix sum."""
        counts = [outlier[i] for i in range(self.lanes)]
        distance = 1
        while distance < self.lanes:
            counts = [
                counts[i] + counts[i - distance] if i >= distance else counts[i]
                for i in range(self.lanes)
            ]
            distance *= 2
        return [Const(0, 1), *counts[:-1]]
