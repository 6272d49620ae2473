"""cocotb tests of the control port and the counters; parameters come from a JSON file."""

import json
import os
from pathlib import Path

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge, with_timeout
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

PARAMETERS = json.loads(Path(os.environ["PARAMETERS"]).read_text())
MAP = PARAMETERS["map"]
OFFSETS = {register["name"]: register["offset"] for register in MAP["registers"]}
STREAMS, SOURCES = MAP["windows"]
WRITABLE = {"NOW": "now", "LAST": "last", "AFTER_DENSE": "after_dense", "PROGRAM": "program",
            "COUNT": "count"}  # fmt: skip


class Host:
    """Reads and writes registers."""

    def __init__(self, dut):
        self.dut = dut
        bus = AxiLiteBus.from_prefix(dut, "control")
        self.master = AxiLiteMaster(bus, dut.clk, dut.rst)
        rng = np.random.default_rng(PARAMETERS["seed"])
        if PARAMETERS["stall"]:
            write, read = self.master.write_if, self.master.read_if
            for channel in (write.aw_channel, write.w_channel, write.b_channel,
                            read.ar_channel, read.r_channel):  # fmt: skip
                channel.set_pause_generator(iter(lambda: bool(rng.random() < 0.5), None))

    async def read(self, offset, words=1):
        response = await self.master.read(offset, 4 * words)
        assert response.resp == AxiResp.OKAY, hex(offset)
        return int.from_bytes(response.data, "little")

    async def write(self, offset, value, size=4):
        response = await self.master.write(offset, value.to_bytes(size, "little"))
        return response.resp == AxiResp.OKAY

    async def register(self, name):
        width = next(r["width"] for r in MAP["registers"] if r["name"] == name)
        return await self.read(OFFSETS[name], 2 if width > 32 else 1)


async def reset(dut):
    Clock(dut.clk, 1, unit="ns", impl="gpi").start()
    for name in PARAMETERS["inputs"]:
        getattr(dut, name).value = 0
    dut.rst.value = 1
    host = Host(dut)
    await ClockCycles(dut.clk, 3)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    return host


@cocotb.test()
async def registers(dut):
    """Settings keep what is written, byte by byte, unless a program runs; errors elsewhere."""
    host = await reset(dut)
    rng = np.random.default_rng(PARAMETERS["seed"])
    assert await host.register("IDENTITY") == int.from_bytes(b"SMK1", "little")
    table = {r["name"]: r for r in MAP["registers"]}
    for name, port in WRITABLE.items():
        width = table[name]["width"]
        size = 8 if width > 32 else 4
        for _ in range(3):
            value = int(rng.integers(1 << width))
            assert await host.write(OFFSETS[name], value, size)
            assert await host.register(name) == value == int(getattr(dut, port).value)
    assert await host.write(OFFSETS["PROGRAM"], 0x11_2233_4455, 8)
    assert await host.write(OFFSETS["PROGRAM"] + 1, 0xAABB, 2)
    assert await host.write(OFFSETS["PROGRAM"] + 4, 0x77, 1)
    assert await host.register("PROGRAM") == 0x77_22AA_BB55
    # Several transfers at once, all of which get their answers.
    writes = [cocotb.start_soon(host.write(OFFSETS["NOW"], i)) for i in range(9)]
    assert all([await with_timeout(write, 1000, "ns") for write in writes])
    reads = [cocotb.start_soon(host.register("NOW")) for _ in range(9)]
    assert [await with_timeout(read, 1000, "ns") for read in reads] == [8] * 9
    dut.running.value = 1
    for name in (*WRITABLE, "START"):
        before = int(getattr(dut, WRITABLE.get(name, "count")).value)
        assert not await host.write(OFFSETS[name], 1)
        assert int(getattr(dut, WRITABLE.get(name, "count")).value) == before
    for name, register in table.items():
        if register["access"] == "read":
            assert not await host.write(OFFSETS[name], 1), name
    end = max(OFFSETS.values()) + 8
    for offset in (end, STREAMS["offset"] - 4, SOURCES["offset"] + 28):
        assert not await host.write(offset, 1)
        assert (await host.master.read(offset, 4)).resp == AxiResp.SLVERR, hex(offset)
    for register in MAP["registers"]:
        if register["access"] == "write":
            assert (await host.master.read(register["offset"], 4)).resp == AxiResp.SLVERR


@cocotb.test()
async def end_of_a_program(dut):
    """START is one pulse; STATUS and the interrupt follow the sequencer."""
    host = await reset(dut)
    pulses = []

    async def watch():
        while True:
            await RisingEdge(dut.clk)
            pulses.append(int(dut.start.value))
            dut.running.value = int((dut.running.value or dut.start.value) and not finished[0])
            dut.finished.value = finished[0]
            finished[0] = 0

    finished = [0]
    cocotb.start_soon(watch())
    assert await host.write(OFFSETS["START"], 0) and sum(pulses) == 0
    for enabled in (1, 0):
        assert await host.write(OFFSETS["INTERRUPT_ENABLE"], enabled)
        assert await host.write(OFFSETS["START"], 1)
        assert await host.register("STATUS") == 1 and not dut.interrupt.value
        assert not await host.write(OFFSETS["START"], 1)
        dut.cycles.value = 0x1234_5678_9ABC
        finished[0] = 1
        await ClockCycles(dut.clk, 5)
        assert dut.interrupt.value == enabled
        assert await host.register("STATUS") == 2 and await host.register("INTERRUPT") == 1
        assert await host.register("CYCLES") == 0x1234_5678_9ABC
        assert await host.write(OFFSETS["INTERRUPT"], 0) and await host.register("INTERRUPT") == 1
        assert await host.write(OFFSETS["INTERRUPT"], 1) and await host.register("INTERRUPT") == 0
        assert not dut.interrupt.value
        dut.illegal.value = 1
        assert await host.register("STATUS") == 6
        dut.illegal.value = 0
    assert sum(pulses) == 2


@cocotb.test()
async def counts(dut):
    """Events of two programs, the second after a clearing start."""
    host = await reset(dut)
    results = []
    for run in PARAMETERS["runs"]:
        await host.write(OFFSETS["COUNT"], run["count"])
        await host.write(OFFSETS["START"], 1)
        for event in run["events"]:
            for name, value in event.items():
                getattr(dut, name).value = value
            await RisingEdge(dut.clk)
            for name in event:
                getattr(dut, name).value = 0
        result = {name: await host.register(name) for name in OFFSETS
                  if name.startswith(("TRAFFIC", "BUSY"))}  # fmt: skip
        entries = range(PARAMETERS["entries"])
        result["streams"] = [await host.read(STREAMS["offset"] + 4 * i) for i in entries]
        columns = len(SOURCES["columns"])
        result["sources"] = []
        for i in entries:
            data = await host.read(SOURCES["offset"] + SOURCES["stride"] * i, columns)
            result["sources"].append([data >> 32 * c & 0xFFFFFFFF for c in range(columns)])
        results.append(result)
    Path(PARAMETERS["results"]).write_text(json.dumps(results))
