"""cocotb test of the vector unit: random instructions against the simulator."""

import json
import os
from collections import Counter

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import Instruction
from signmask.sim.core import Core
from signmask.sim.counters import KEYS, Counters
from signmask.sim.outlier_selector import OutlierSelector
from signmask.sim.sfu import Sfu
from tests.hw.units.sfu.stimulus import Stimulus

PARAMETERS = json.loads(os.environ["PARAMETERS"])
CONFIG = HardwareConfig.from_json(PARAMETERS["config"])
BITS = {"accumulator": 32, "input": 9, "segments": 3, "corrections": 16, "parameter": 48}
CLASSES = KEYS[:5]
SOURCES, STREAMS = ("a", "b"), ("s", "t")


def packed(words, bits):
    """Integers, one a word, with its values side by side, the first lowest."""
    values = np.asarray(words).astype(np.int64)
    ones = (values[..., None] >> np.arange(bits) & 1).astype(np.uint8)
    ones = ones.reshape(len(values), values[0].size * bits if len(values) else 0)
    return [int.from_bytes(row.tobytes(), "little") for row in np.packbits(ones, 1, "little")]


class Bench:
    """The device and the simulator's copy of its scratchpads."""

    def __init__(self, dut, rng):
        self.dut, self.rng = dut, rng
        self.counters = Counters(SOURCES, STREAMS, CONFIG.inlier_bits)
        self.core = Core(CONFIG, np.zeros(0, np.uint8), 1024, self.counters)
        selector = OutlierSelector(CONFIG.inlier_bits, CONFIG.full_lanes)
        self.units = Sfu(self.core, selector).instructions
        self.device = {name: getattr(self.core, name).data.copy() for name in BITS}

    async def reset(self):
        dut = self.dut
        Clock(dut.clk, 2, unit="ns", impl="gpi").start()
        dut.instruction__valid.value = 0
        for name in (*BITS, "row"):
            getattr(dut, f"{name}_fill__en").value = 0
            getattr(dut, f"{name}_look__en").value = 0
        for name in BITS:
            getattr(dut, f"{name}_fill__lanes").value = (1 << CONFIG.group) - 1
        dut.rst.value = 1
        await FallingEdge(dut.clk)
        await FallingEdge(dut.clk)
        dut.rst.value = 0
        for name in BITS:
            await self._write(name, range(len(self.device[name])))

    async def _write(self, name, places):
        fill = {part: getattr(self.dut, f"{name}_fill__{part}") for part in ("en", "addr", "data")}
        data = getattr(self.core, name).data
        for at, word in zip(places, packed(data[list(places)], BITS[name]), strict=True):
            fill["en"].value, fill["addr"].value, fill["data"].value = 1, int(at), word
            await FallingEdge(self.dut.clk)
        fill["en"].value = 0
        self.device[name] = data.copy()

    async def fill(self):
        """Write the words that differ from what the device holds."""
        for name, held in self.device.items():
            data = getattr(self.core, name).data
            await self._write(name, np.flatnonzero((data != held).any(axis=1)))

    async def compare(self, what):
        """Every word of the scratchpads that vector instructions write."""
        for name in ("accumulator", "input", "parameter"):
            look = getattr(self.dut, f"{name}_look__addr")
            getattr(self.dut, f"{name}_look__en").value = 1
            data = getattr(self.core, name).data
            for at, wanted in enumerate(packed(data, BITS[name])):
                look.value = at
                await FallingEdge(self.dut.clk)
                found = int(getattr(self.dut, f"{name}_look__data").value)
                assert found == wanted, (
                    f"{name} word {at} is {found:x}, simulator {wanted:x}: {what}"
                )
            getattr(self.dut, f"{name}_look__en").value = 0
            self.device[name] = data.copy()

    async def execute(self, name, fields):
        """Run one instruction on both; returns the cycles."""
        dut = self.dut
        await self.fill()
        self.counters.reset()
        cost = self.units[name](fields)
        self.core.log.take()
        what = f"{name} {fields}"
        assert int(dut.instruction__ready.value) == 1
        word = int.from_bytes(Instruction(name, fields).encode(), "little")
        dut.instruction__payload.value, dut.instruction__valid.value = word, 1
        await FallingEdge(dut.clk)
        # The word is valid in the cycle of the start only.
        dut.instruction__valid.value = 0
        dut.instruction__payload.value = int.from_bytes(self.rng.bytes(32), "little")
        assert int(dut.instruction__ready.value) == 0
        await RisingEdge(dut.done)
        await FallingEdge(dut.clk)
        await FallingEdge(dut.clk)
        assert (int(dut.instruction__ready.value), int(dut.done.value)) == (1, 0)
        cycles = int(dut.cycles.value)
        assert cycles == cost.done == cost.occupied, f"{cycles} cycles, simulator {cost}: {what}"
        self._counts(fields, what)
        await self.compare(what)
        return cycles

    def _counts(self, fields, what):
        dut, result = self.dut, self.counters.result()
        found = [int(getattr(dut, f"count_{name}").value) for name in CLASSES]
        source = SOURCES[fields.get("source", 0)]
        wanted = [result.get(source, {}).get(name, 0) for name in CLASSES]
        assert found == wanted, f"deltas {found}, simulator {wanted}: {what}"
        if wanted[-1]:
            assert int(dut.source.value) == fields["source"], what
        saturated = int(dut.count_saturated.value)
        stream = fields.get("stream", 0)
        assert saturated == result["streams"][STREAMS[stream]], f"{saturated} saturated: {what}"
        assert not saturated or int(dut.stream.value) == stream, what


@cocotb.test()
async def random_instructions(dut):
    """Scratchpads, counts and cycles of every instruction are the simulator's."""
    rng = np.random.default_rng(PARAMETERS["seed"])
    bench = Bench(dut, rng)
    await bench.reset()
    stimulus = Stimulus(bench.core, rng)
    seen, cycles = Counter(), 0
    for _ in range(PARAMETERS["instructions"]):
        name, fields = stimulus.next()
        cycles += await bench.execute(name, fields)
        seen[name] += 1
    dut._log.info("%d cycles, %s", cycles, dict(seen))
