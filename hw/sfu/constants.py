"""CONSTANTS: live normalisation constants from sums in the parameter scratchpad."""

from __future__ import annotations

from amaranth import Module, Signal

from signmask.hw.delays import delays
from signmask.hw.normalisation import NormalisationUnit
from signmask.hw.sfu.operation import ENTRY_BITS, Operation
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import MAX_PARTS, NORM_RECORD
from signmask.hw.spec.timing import RECORD_FILL

READS = ("parameter_0", "parameter_1", "parameter_2")
WRITES = ("parameter_write_0", "parameter_write_1")
# Planes follow from the channels of each part.
LATCHED = tuple(name for name in NORM_RECORD if not name.startswith("planes"))


class Constants(Operation):
    """Executes CONSTANTS: reads the norm record, then runs the normalisation unit."""

    def __init__(self, config: HardwareConfig) -> None:
        super().__init__(config, "CONSTANTS", READS + WRITES)

    def elaborate(self, platform: object) -> Module:
        """Record words arrive one per cycle; the unit starts behind the last."""
        m = Module()
        n = self.config.group
        words = -(-len(NORM_RECORD) // n)
        start, _, fields = self.latch(m)
        steps = delays(m, start, words + RECORD_FILL, "step")
        m.submodules.unit = unit = NormalisationUnit(self.config, self.config.parameter_words)
        for name in LATCHED:
            word, lane = divmod(NORM_RECORD.index(name), n)
            target = getattr(unit, name)
            held = Signal.like(target, name=name)
            with m.If(steps[2 + word]):
                m.d.sync += held.eq(self.parameter_0.data[lane * ENTRY_BITS :][:ENTRY_BITS])
            m.d.comb += target.eq(held)
        for name in ("gain", "offset", *(f"sums_{i}" for i in range(MAX_PARTS))):
            m.d.comb += getattr(unit, name).eq(fields[name])
        m.d.comb += [
            unit.output.eq(fields["constants"]),
            unit.start.eq(steps[-1]),
            self.done.eq(unit.done),
        ]
        for i, name in enumerate(READS):
            port, inner = getattr(self, name), getattr(unit, f"read_{i}")
            m.d.comb += [
                port.en.eq(inner.en), port.addr.eq(inner.addr), inner.data.eq(port.data)
            ]  # fmt: skip
        for i, name in enumerate(WRITES):
            port, inner = getattr(self, name), getattr(unit, f"write_{i}")
            m.d.comb += [
                port.en.eq(inner.en), port.addr.eq(inner.addr), port.data.eq(inner.data),
                port.lanes.eq(inner.lanes),
            ]  # fmt: skip
        for word in range(words):
            with m.If(steps[1 + word]):
                m.d.comb += [
                    self.parameter_0.en.eq(1),
                    self.parameter_0.addr.eq(fields["record"] + word),
                ]
        return m
