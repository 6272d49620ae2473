"""Joins scanned words with their outliers from the list."""

from __future__ import annotations

from amaranth import Array, Cat, Elaboratable, Module, Mux, Signal, Value, signed

from signmask.hw.near_data.control import Stage
from signmask.hw.near_data.frames import FrameRing
from signmask.hw.near_data.lanes import before, spread
from signmask.hw.near_data.scan import DeltaMemory
from signmask.hw.near_data.shape import Shape


class DeltaReader(Elaboratable):
    """Values of the words in `stages`, n lanes of `bits` bits, LATENCY stages after stage 0.

    Reads `memory` in stage 0 and asks for the list's chunk in stage 1 (`read`, `size`, `restart`,
    `skip`, as in ReadBuffer); the chunk must come in stage 3. `wide`: outliers of 4 bytes.
    """

    LATENCY = 4

    def __init__(
        self, name: str, shape: Shape, stages: list[Stage], ring: FrameRing, stream: int,
        memory: DeltaMemory, bits: int,
    ) -> None:  # fmt: skip
        self.name, self.shape, self.stages, self.ring = name, shape, stages, ring
        self.stream, self.memory, self.bits = stream, memory, bits
        self.enabled, self.wide = Signal(), Signal()
        self.read, self.restart = Signal(), Signal()
        self.size, self.skip = Signal(range(4 * shape.n + 1)), Signal(shape.beat_bits)
        self.chunk = Signal((32 if bits > 16 else 16) * shape.n)
        self.values = [Signal(signed(bits), name=f"{name}_{i}") for i in range(shape.n)]

    def elaborate(self, platform: object) -> Module:
        """Stage 1 asks for outliers, stage 2 numbers them, stage 3 puts them in their places."""
        m = Module()
        n, memory, stages = self.shape.n, self.memory, self.stages
        port = memory.source
        word = stages[0].word[: memory.word_bits]
        m.d.comb += [
            port.en.eq(stages[0].valid & ~stages[0].gain & self.enabled),
            port.addr.eq(Cat(word, stages[0].slot)),
        ]
        count = port.data[n * (1 + memory.bits) :]
        valid = stages[1].valid & ~stages[1].gain & self.enabled
        m.d.comb += [
            self.read.eq(valid), self.size.eq(Mux(self.wide, count << 2, count << 1)),
            self.restart.eq(stages[1].head & Array(self.ring.restart[self.stream])[stages[1].slot]),
            self.skip.eq(Array(self.ring.skip[self.stream])[stages[1].slot]),
        ]  # fmt: skip
        entries = [Signal(n * (1 + memory.bits), name=f"{self.name}_entry_{i}") for i in (2, 3)]
        wide = [Signal(name=f"{self.name}_wide_{i}") for i in (2, 3)]
        with m.If(valid):
            m.d.sync += [entries[0].eq(port.data), wide[0].eq(self.wide)]
        ranks = before(entries[0][:n])
        places = [Signal(len(rank), name=f"{self.name}_place_{i}") for i, rank in enumerate(ranks)]
        with m.If(stages[2].valid & self.enabled):
            m.d.sync += [entries[1].eq(entries[0]), wide[1].eq(wide[0])]
            m.d.sync += [place.eq(rank) for place, rank in zip(places, ranks, strict=True)]
        inliers: list[Value] = [
            entries[1][n + i * memory.bits : n + (i + 1) * memory.bits].as_signed()
            for i in range(n)
        ]
        values = spread(entries[1][:n], places, inliers, self.chunk, wide[1], self.bits)
        with m.If(stages[3].valid & self.enabled):
            m.d.sync += [a.eq(b) for a, b in zip(self.values, values, strict=True)]
        return m
