"""Performance counters of one program: busy cycles, bytes moved, encoded deltas, saturations."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, PureInterface

from signmask.hw.ports import CountEvent, DeltaEvent, MovedEvent, address_bits
from signmask.hw.register_map import (
    COUNT_BITS,
    COUNTER_BITS,
    ENTRY_BITS,
    register_map,
    traffic_names,
)
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import INSTRUCTION_BYTES, Queue, Traffic
from signmask.hw.tally import Tally

DELTA_COLUMNS = ("zero", "inlier", "outlier", "clipped", "elements")
BYTES_BITS = 32


class EngineMoved(wiring.Signature):
    """Bytes that one instruction of the near-data engine read and wrote."""

    def __init__(self) -> None:
        super().__init__({"valid": Out(1), "bytes": Out(BYTES_BITS)})


class Readout(wiring.Signature):
    """Counters as their reader sees them: `source` and `stream` with `en` select what `values`,
    `counted` and `saturated` hold in the next cycle."""

    def __init__(self, entries: int) -> None:
        bits = address_bits(entries)
        super().__init__(
            {
                "busy": In(COUNTER_BITS).array(len(Queue)),
                "traffic": In(COUNTER_BITS).array(len(traffic_names())),
                "en": Out(1),
                "source": Out(bits),
                "stream": Out(bits),
                "values": In(ENTRY_BITS).array(len(DELTA_COLUMNS) + 1),
                "counted": In(1),
                "saturated": In(ENTRY_BITS),
            }
        )


class Counters(wiring.Component):
    """Adds up the events of the units from `clear` on; the last event counts two cycles later.

    `occupied`: one bit per queue, as the sequencer has it. `count`: instructions of the program,
    read in the cycle of `clear`.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.entries = register_map(config).sources.entries
        super().__init__(
            {
                "clear": In(1),
                "occupied": In(len(Queue)),
                "count": In(COUNT_BITS),
                "load_moved": In(MovedEvent()),
                "store_moved": In(MovedEvent()),
                "engine_moved": In(EngineMoved()),
                "deltas": In(DeltaEvent()),
                "segment_changes": In(CountEvent(16)),
                "vector_saturated": In(CountEvent(8)),
                "engine_saturated": In(CountEvent(16)),
                "readout": In(Readout(self.entries)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Registers for busy cycles and bytes, tallies for the rest. The vector unit and the
        engine may saturate in one cycle, so each has its own tally; they are added when read."""
        m = Module()
        read = self.readout
        for queue in Queue:
            self._count(m, read.busy[queue], self.occupied[queue])
        self._traffic(m)
        deltas = self._tally(m, "deltas", self.deltas, DELTA_COLUMNS, read.source)
        changes = self._tally(m, "segment_changes", self.segment_changes, ("count",), read.source)
        vector = self._tally(m, "vector_saturated", self.vector_saturated, ("count",), read.stream)
        engine = self._tally(m, "engine_saturated", self.engine_saturated, ("count",), read.stream)
        m.d.comb += [
            Cat(read.values).eq(Cat(deltas.values, changes.values)),
            read.counted.eq(deltas.counted | changes.counted),
            read.saturated.eq(vector.values + engine.values),
        ]
        return m

    def _tally(
        self, m: Module, name: str, event: PureInterface, columns: tuple[str, ...], index: Value
    ) -> Tally:
        counts = [getattr(event, column) for column in columns]
        m.submodules[f"{name}_tally"] = tally = Tally(self.entries, [len(c) for c in counts])
        m.d.comb += [
            tally.clear.eq(self.clear),
            tally.valid.eq(event.valid),
            tally.index.eq(event.index),
            tally.counts.eq(Cat(*counts)),
            tally.read_en.eq(self.readout.en),
            tally.read_index.eq(index),
        ]
        return tally

    def _traffic(self, m: Module) -> None:
        """Bytes by kind; load and store may move the same kind in one cycle."""
        for kind in Traffic:
            sizes = [
                Mux(event.valid & (event.kind == kind), event.bytes, 0)
                for event in (self.load_moved, self.store_moved)
            ]
            self._count(m, self.readout.traffic[kind], sizes[0] + sizes[1])
        names = traffic_names()
        near_data = Mux(self.engine_moved.valid, self.engine_moved.bytes, 0)
        self._count(m, self.readout.traffic[names.index("NEAR_DATA")], near_data)
        with m.If(self.clear):
            fetched = self.readout.traffic[names.index("INSTRUCTIONS")]
            m.d.sync += fetched.eq(self.count * INSTRUCTION_BYTES)

    def _count(self, m: Module, total: Signal, step: Value) -> None:
        with m.If(self.clear):
            m.d.sync += total.eq(0)
        with m.Else():
            m.d.sync += total.eq(total + step)
