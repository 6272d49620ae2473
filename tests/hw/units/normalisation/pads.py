"""Scratchpads in Python on the ports of a unit under test, with checks of every access."""

from dataclasses import dataclass

import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge


@dataclass
class Pad:
    """`data` is int64 (words, lanes) of `bits` signed bits; ports by name."""

    data: np.ndarray
    bits: int
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    def word(self, at: int) -> int:
        """A word as the port carries it."""
        mask = (1 << self.bits) - 1
        return sum((int(v) & mask) << self.bits * i for i, v in enumerate(self.data[at]))

    def write(self, at: int, value: int, lanes: int) -> None:
        """The lanes of a word whose enable is set."""
        half, mask = 1 << self.bits - 1, (1 << self.bits) - 1
        for i in range(self.data.shape[1]):
            if lanes >> i & 1:
                entry = value >> self.bits * i & mask
                self.data[at, i] = (entry ^ half) - half


class Device:
    """A unit, its clock and its scratchpads. A cycle begins behind the rising edge."""

    def __init__(self, dut, pads, rng):
        self.dut, self.pads, self.rng = dut, pads, rng
        self.instructed, self.ready = hasattr(dut, "instruction__ready"), 0

    async def reset(self):
        dut = self.dut
        Clock(dut.clk, 2, unit="ns", impl="gpi").start()
        dut.rst.value = 1
        await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)
        dut.rst.value = 0

    async def cycle(self):
        """Serve the ports for one cycle; returns whether the unit was done in it."""
        dut = self.dut
        await FallingEdge(dut.clk)
        done, answers = int(dut.done.value), []
        if self.instructed:
            self.ready = int(dut.instruction__ready.value)
        for pad in self.pads:
            for name in pad.reads:
                if int(getattr(dut, f"{name}__en").value):
                    at = int(getattr(dut, f"{name}__addr").value)
                    answers.append((getattr(dut, f"{name}__data"), pad.word(at)))
            for name in pad.writes:
                if int(getattr(dut, f"{name}__en").value):
                    parts = (getattr(dut, f"{name}__{part}") for part in ("addr", "data", "lanes"))
                    pad.write(*(int(part.value) for part in parts))
        await RisingEdge(dut.clk)
        for port, word in answers:
            port.value = word
        return done

    async def run(self, begin, end, limit=20000):
        """Cycles from the one of `begin` (inputs set, taken back by `end`) to the done cycle."""
        begin()
        for cycles in range(1, limit):
            done = await self.cycle()
            if cycles == 1:
                end()
            if done:
                break
        else:
            raise AssertionError(f"not done after {limit} cycles")
        for _ in range(int(self.rng.integers(0, 3))):
            assert not await self.cycle(), "done twice"
        return cycles

    async def execute(self, instruction):
        """Run one encoded instruction; its word is there in the cycle of the start only."""
        dut = self.dut

        def begin():
            dut.instruction__payload.value = int.from_bytes(instruction, "little")
            dut.instruction__valid.value = 1

        def end():
            assert self.ready, "not ready"
            dut.instruction__payload.value = int.from_bytes(self.rng.bytes(32), "little")
            dut.instruction__valid.value = 0

        return await self.run(begin, end)
