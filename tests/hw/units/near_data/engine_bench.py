"""Bench of the near-data engine: the engine, its memory, and counters of what it reports."""

from __future__ import annotations

from amaranth import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.near_data.engine import NearDataEngine
from signmask.hw.simulation.memory import ReadMemory, WriteMemory
from signmask.hw.spec.config import HardwareConfig


class EngineBench(wiring.Component):
    """`go` hands over `word`; `finished` pulses after the instruction, with its cycles, bytes and
    counts until the next."""

    def __init__(self, config: HardwareConfig) -> None:
        self.config = config
        super().__init__(
            {
                "go": In(1), "word": In(256), "now": In(16), "last": In(16), "after_dense": In(1),
                "finished": Out(1), "cycles": Out(32), "moved": Out(32), "changes": Out(32),
                "saturated": Out(32), "source": Out(12), "stream": Out(12),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Engine, memories, counters."""
        m = Module()
        beat = self.config.near_data_bytes
        m.submodules.engine = engine = NearDataEngine(self.config)
        m.submodules.read = read = ReadMemory(0, beat)
        m.submodules.write = write = WriteMemory(1, beat)
        wiring.connect(m, engine.read, read.port)
        wiring.connect(m, engine.write, write.port)
        time, start = Signal(32), Signal(32)
        m.d.comb += [
            engine.instruction.valid.eq(self.go), engine.instruction.payload.eq(self.word),
            engine.now.eq(self.now), engine.last.eq(self.last),
            engine.after_dense.eq(self.after_dense),
        ]  # fmt: skip
        m.d.sync += [time.eq(time + 1), self.finished.eq(engine.done)]
        with m.If(engine.segment_changes.valid):
            m.d.sync += [
                self.changes.eq(self.changes + engine.segment_changes.count),
                self.source.eq(engine.segment_changes.index),
            ]  # fmt: skip
        with m.If(engine.saturated.valid):
            m.d.sync += [
                self.saturated.eq(self.saturated + engine.saturated.count),
                self.stream.eq(engine.saturated.index),
            ]  # fmt: skip
        with m.If(self.go & engine.instruction.ready):
            m.d.sync += [start.eq(time), self.changes.eq(0), self.saturated.eq(0)]
        with m.If(engine.done):
            m.d.sync += self.cycles.eq(time + 1 - start)
        with m.If(engine.moved_bytes.valid):
            m.d.sync += self.moved.eq(engine.moved_bytes.bytes)
        return m
