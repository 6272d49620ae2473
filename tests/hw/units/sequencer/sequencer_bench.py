"""cocotb test of the sequencer: a memory and five dummy units around it; parameters come from the
environment as JSON."""

import json
import os
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

PARAMETERS = json.loads(os.environ["PARAMETERS"])
UNITS = ("load", "array", "vector", "store", "engine")
COST_AT = 64  # where the dummies' instructions hold index, occupied and done, 24 bits each


class Memory:
    """The memory model without stalls, or with random ones."""

    def __init__(self, dut, rng):
        self.dut, self.rng = dut, rng
        self.data = bytes.fromhex(PARAMETERS["memory"])
        self.beats = []  # (cycle, data, last)
        self.bursts = 0

    def step(self, cycle):
        """Act on the handshakes of `cycle` and drive those of the next one."""
        dut, width = self.dut, PARAMETERS["axi_bytes"]
        if dut.memory__r__valid.value and dut.memory__r__ready.value:
            self.beats.pop(0)
        if dut.memory__ar__valid.value and dut.memory__ar__ready.value:
            at, beats = int(dut.memory__ar__addr.value), int(dut.memory__ar__len.value) + 1
            assert at % width == 0 and at // 4096 == (at + beats * width - 1) // 4096
            self.bursts += 1
            for i in range(beats):
                place = at - PARAMETERS["program"] + i * width
                data = int.from_bytes(self.data[place : place + width], "little")
                self.beats.append((cycle + PARAMETERS["latency"], data, i == beats - 1))
        stall = self.rng.random(2) < PARAMETERS["stall"]
        dut.memory__ar__ready.value = int(not stall[0])
        offered = dut.memory__r__valid.value and not dut.memory__r__ready.value
        if self.beats and self.beats[0][0] <= cycle + 1 and (offered or not stall[1]):
            dut.memory__r__valid.value = 1
            dut.memory__r__data.value = self.beats[0][1]
            dut.memory__r__last.value = int(self.beats[0][2])
        else:
            dut.memory__r__valid.value = 0


class Unit:
    """Takes each instruction for the cycles that it states."""

    def __init__(self, dut, name):
        self.valid = getattr(dut, f"{name}__instruction__valid")
        self.ready = getattr(dut, f"{name}__instruction__ready")
        self.payload = getattr(dut, f"{name}__instruction__payload")
        self.done = getattr(dut, f"{name}__done")
        self.is_ready, self.free = False, 0
        self.dones = []
        self.seen = []

    def step(self, cycle):
        if self.is_ready and self.valid.value:
            word = int(self.payload.value) >> COST_AT
            index, occupied, done = (word >> 24 * i & 0xFFFFFF for i in range(3))
            self.seen.append((index, cycle, cycle + done))
            self.free = cycle + occupied
            self.dones.append(cycle + done - 1)
        self.is_ready = cycle + 1 >= self.free
        self.ready.value = int(self.is_ready)
        ends = bool(self.dones) and self.dones[0] == cycle + 1
        self.done.value = int(ends)
        if ends:
            self.dones.pop(0)


@cocotb.test()
async def runs(dut):
    """Run the program twice and write what happened."""
    Clock(dut.clk, 1, unit="ns", impl="gpi").start()
    rng = np.random.default_rng(PARAMETERS["seed"])
    for signal in ("start", "memory__r__valid", "memory__ar__ready"):
        getattr(dut, signal).value = 0
    units = [Unit(dut, name) for name in UNITS]
    dut.rst.value = 1
    for unit in units:
        unit.step(-10)
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    results = []
    for _ in range(2):
        memory = Memory(dut, rng)
        for unit in units:
            unit.seen, unit.free = [], 0
        dut.program.value, dut.count.value = PARAMETERS["program"], PARAMETERS["count"]
        dut.start.value = 1
        occupied = [0] * len(UNITS)
        for cycle in range(PARAMETERS["limit"]):
            await RisingEdge(dut.clk)
            flags = int(dut.occupied.value)
            occupied = [total + (flags >> i & 1) for i, total in enumerate(occupied)]
            ended = bool(dut.finished.value)
            memory.step(cycle)
            for unit in units:
                unit.step(cycle)
            dut.start.value = 0
            if ended:
                break
        else:
            raise AssertionError("the program does not end")
        for _ in range(3):
            await RisingEdge(dut.clk)
            assert not dut.running.value and not dut.finished.value
        results.append(
            {
                "cycles": int(dut.cycles.value), "ended": cycle, "busy": occupied,
                "seen": sorted(entry for unit in units for entry in unit.seen),
                "illegal": int(dut.illegal.value), "bursts": memory.bursts,
                "unread": len(memory.beats),
            }
        )  # fmt: skip
    Path(PARAMETERS["results"]).write_text(json.dumps(results))
