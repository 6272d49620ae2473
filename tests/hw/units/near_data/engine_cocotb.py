"""cocotb test of the near-data engine: instructions one after the other, memory against sim/."""

import json
import os

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge, with_timeout

from signmask.hw.spec.config import HardwareConfig
from signmask.sim.core import Core
from signmask.sim.counters import Counters
from signmask.sim.near_data_engine import NearDataEngine
from signmask.sim.outlier_selector import OutlierSelector
from tests.hw.units.near_data.engine_cases import Case, instruction_word

PARAMETERS = json.loads(os.environ["PARAMETERS"])
LIMIT_NS = 1_000_000
NAMES = [f"item_{i:03}" for i in range(100)]


async def reset(dut):
    """Start the clock and reset."""
    Clock(dut.clk, 2, unit="ns", impl="gpi").start()
    dut.rst.value = 1
    dut.go.value = 0
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)


async def execute(dut, name, descriptor, steps, after_dense):
    """Run one instruction; returns (cycles, bytes, segment changes, saturated)."""
    dut.word.value = instruction_word(name, descriptor)
    dut.now.value, dut.last.value = steps
    dut.after_dense.value = int(after_dense)
    dut.go.value = 1
    await RisingEdge(dut.clk)
    dut.go.value = 0
    await with_timeout(RisingEdge(dut.finished), LIMIT_NS, "ns")
    await RisingEdge(dut.clk)
    return tuple(int(port.value) for port in (dut.cycles, dut.moved, dut.changes, dut.saturated))


async def execute_at_once(dut, names, case, after_dense):
    """Run instructions each of which waits for the one before; returns (cycles, bytes) of each."""
    dut.now.value, dut.last.value = case.now, case.last
    dut.after_dense.value = int(after_dense)
    found = []
    for index, name in enumerate(names):
        dut.word.value = instruction_word(name, descriptor_of(case, name))
        dut.go.value = 1
        if index:
            await with_timeout(RisingEdge(dut.finished), LIMIT_NS, "ns")
            found.append((int(dut.cycles.value), int(dut.moved.value)))
        await RisingEdge(dut.clk)
    dut.go.value = 0
    await with_timeout(RisingEdge(dut.finished), LIMIT_NS, "ns")
    found.append((int(dut.cycles.value), int(dut.moved.value)))
    await RisingEdge(dut.clk)
    return found


def descriptor_of(case, name):
    """What the instruction acts on."""
    return case.boundary if name in ("PREPARE", "UPDATE_CODES") else case.stream


def simulated(config, case, after_dense):
    """(counters, core, engine) of the simulator on the memory of a case."""
    counters = Counters(NAMES, NAMES, config.inlier_bits)
    core = Core(config, case.image, case.image.size, counters)
    engine = NearDataEngine(core, OutlierSelector(config.inlier_bits, config.full_lanes))
    core.now, core.last, core.after_dense = case.now, case.last, after_dense
    return counters, core, engine


def differences(found, wanted):
    """Where two memories differ, for the report."""
    places = np.flatnonzero(found != wanted)
    start = places[0] // 64 * 64
    return (
        f"{places.size} bytes differ, first at {places[:8].tolist()}: "
        f"{found[start : start + 64].view('<i2').tolist()} not "
        f"{wanted[start : start + 64].view('<i2').tolist()}"
    )


@cocotb.test()
async def instructions(dut):
    """Random instructions: same memory, counts and bytes; without stalls the same cycles."""
    config = HardwareConfig(**PARAMETERS["config"])
    memory = np.memmap(PARAMETERS["memory"], np.uint8, "r+")
    await reset(dut)
    wrong = []
    for index, item in enumerate(PARAMETERS["cases"]):
        case = Case(config, item["seed"], **item.get("fixed", {}))
        counters, core, engine = simulated(config, case, bool(item["after_dense"]))
        memory[: case.image.size] = case.image
        for name in item["names"]:
            counters.reset()
            descriptor = descriptor_of(case, name)
            cost = engine.instructions[name]({"descriptor": descriptor})
            core.log.take()
            cycles, moved, changes, saturated = await execute(
                dut, name, descriptor, (case.now, case.last), core.after_dense
            )
            label = (
                f"case {index} {item} {name} {case.loop} {case.norm} {case.planes} "
                f"{case.images}x{case.positions}"
            )
            result = counters.result()
            streams = result.pop("streams")
            expected = (
                sum(entry["segment_changes"] for entry in result.values()), sum(streams.values())
            )  # fmt: skip
            if not np.array_equal(memory[: case.image.size], core.memory.data):
                wrong.append(f"{label}: {differences(memory[: case.image.size], core.memory.data)}")
                memory[: case.image.size] = core.memory.data
            if moved != counters.traffic["near_data"]:
                wrong.append(f"{label}: {moved} bytes, not {counters.traffic['near_data']}")
            if (changes, saturated) != expected:
                wrong.append(f"{label}: counts {(changes, saturated)}, not {expected}")
            if PARAMETERS["exact"] and cycles != cost.done:
                wrong.append(f"{label}: {cycles} cycles, not {cost.done}")
    assert not wrong, "\n".join(wrong)


@cocotb.test()
async def successions(dut):
    """As `instructions`, but each is there before its predecessor is done."""
    config = HardwareConfig(**PARAMETERS["config"])
    memory = np.memmap(PARAMETERS["memory"], np.uint8, "r+")
    await reset(dut)
    wrong = []
    for item in PARAMETERS["cases"]:
        case = Case(config, item["seed"], **item.get("fixed", {}))
        counters, core, engine = simulated(config, case, bool(item["after_dense"]))
        memory[: case.image.size] = case.image
        wanted = []
        for name in item["names"]:
            counters.reset()
            cost = engine.instructions[name]({"descriptor": descriptor_of(case, name)})
            core.log.take()
            wanted.append((cost.done, counters.traffic["near_data"]))
        found = await execute_at_once(dut, item["names"], case, core.after_dense)
        if not np.array_equal(memory[: case.image.size], core.memory.data):
            wrong.append(f"{item}: {differences(memory[: case.image.size], core.memory.data)}")
        if found != wanted:
            wrong.append(f"{item}: (cycles, bytes) are {found}, not {wanted}")
    assert not wrong, "\n".join(wrong)
