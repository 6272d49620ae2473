"""cocotb tests of the normalisation unit, of CONSTANTS and of their arithmetic."""

import json
import os
from math import isqrt

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import FORMATS, NORM_RECORD, Instruction, pack_descriptor
from signmask.sim.core import Core
from signmask.sim.counters import Counters
from signmask.sim.outlier_selector import OutlierSelector
from signmask.sim.sfu import Sfu
from tests.hw.units.normalisation.pads import Device, Pad
from tests.hw.units.normalisation.stimulus import Run

PARAMETERS = json.loads(os.environ["PARAMETERS"])
CONFIG = HardwareConfig.from_json(PARAMETERS["config"])
ENTRY_BITS = 48


def same(found, wanted, what):
    """Compare memories of words."""
    differ = np.flatnonzero((found != wanted).any(axis=1))
    if differ.size:
        at = differ[0]
        raise AssertionError(
            f"word {at} (and {differ.size - 1} more) is {found[at]}, simulator {wanted[at]}: {what}"
        )


@cocotb.test()
async def normalises(dut):
    """Constants of random runs, with and without a trend, and the cycles."""
    rng = np.random.default_rng(PARAMETERS["seed"])
    reads, writes = ("read_0", "read_1", "read_2"), ("write_0", "write_1")
    pad = Pad(np.zeros((PARAMETERS["depth"], CONFIG.group), np.int64), ENTRY_BITS, reads, writes)
    device = Device(dut, [pad], rng)
    dut.start.value = 0
    await device.reset()
    for i in range(PARAMETERS["runs"]):
        run = Run(CONFIG, rng, PARAMETERS["depth"], bool(i % 2), bool(i % 3 == 2))
        pad.data = run.before.copy()
        for name, value in {**run.fields, "trend": run.trend, "gain_only": run.gain_only}.items():
            port = getattr(dut, name)
            port.value = int(value) & (1 << len(port)) - 1

        def begin():
            dut.start.value = 1

        def end():
            dut.start.value = 0

        cycles = await device.run(begin, end)
        what = f"trend={run.trend} gain_only={run.gain_only} {run.fields}"
        same(pad.data, run.after, what)
        assert cycles == run.cycles, f"{cycles} cycles, formula {run.cycles}: {what}"


@cocotb.test()
async def executes_constants(dut):
    """CONSTANTS against the simulator's instruction."""
    rng = np.random.default_rng(PARAMETERS["seed"])
    core = Core(CONFIG, np.zeros(0, np.uint8), 64, Counters(("a",), ("s",), CONFIG.inlier_bits))
    execute = Sfu(core, OutlierSelector(CONFIG.inlier_bits, CONFIG.full_lanes)).constants
    words = -(-len(NORM_RECORD) // CONFIG.group)
    reads = ("parameter_0", "parameter_1", "parameter_2")
    writes = ("parameter_write_0", "parameter_write_1")
    pad = Pad(core.parameter.data, ENTRY_BITS, reads, writes)
    device = Device(dut, [pad], rng)
    dut.instruction__valid.value = 0
    await device.reset()
    for _ in range(PARAMETERS["runs"]):
        depth = CONFIG.parameter_words - words
        run = Run(CONFIG, rng, depth)
        record = np.zeros(words * CONFIG.group, np.int64)
        values = {key: run.fields.get(key, 0) for key in NORM_RECORD} | {"planes": run.planes}
        values |= {f"planes_{i}": part.planes for i, part in enumerate(run.parts)}
        record[: len(NORM_RECORD)] = pack_descriptor(NORM_RECORD, values)
        core.parameter.data[:depth] = run.before
        core.parameter.data[depth:] = record.reshape(words, -1)
        given = {name: run.fields.get(name, 0) for name, _, _ in FORMATS["CONSTANTS"].fields}
        given |= {"record": depth, "constants": run.fields["output"]}
        pad.data = core.parameter.data.copy()
        cost = execute(given)
        core.log.take()
        cycles = await device.execute(Instruction("CONSTANTS", given).encode())
        same(pad.data, core.parameter.data, run.fields)
        assert cycles == cost.done == cost.occupied, f"{cycles} cycles, simulator {cost}"


async def _stream(dut, present, operands, latency, read, wanted):
    """Operands with random gaps; results leave in order, `latency` cycles later."""
    Clock(dut.clk, 2, unit="ns", impl="gpi").start()
    rng = np.random.default_rng(PARAMETERS["seed"])
    dut.valid.value, dut.rst.value = 0, 1
    await FallingEdge(dut.clk)
    dut.rst.value = 0
    waiting, given, cycle, found = [], 0, 0, []
    while len(found) < len(operands):
        go = given < len(operands) and rng.random() < 0.7
        dut.valid.value = int(go)
        if go:
            present(operands[given])
            waiting.append(cycle + latency)
            given += 1
        await FallingEdge(dut.clk)
        cycle += 1
        if int(dut.valid_out.value):
            assert waiting.pop(0) == cycle, "a result at the wrong time"
            found.append(read())
    for operand, got in zip(operands, found, strict=True):
        assert got == wanted(operand), f"{operand}: {got}, wanted {wanted(operand)}"


@cocotb.test()
async def divides(dut):
    """Quotients of random and extreme operands."""
    rng = np.random.default_rng(PARAMETERS["seed"])
    bits, quotient = PARAMETERS["divisor_bits"], PARAMETERS["quotient_bits"]
    operands = []
    for _ in range(PARAMETERS["runs"]):
        divisor = int(rng.integers(1, 1 << int(rng.integers(1, bits + 1))))
        divisor = int(rng.choice([divisor, divisor, 1, (1 << bits) - 1, 1 << bits - 1]))
        head = int(rng.choice([0, divisor - 1, int(rng.integers(divisor))]))
        low = int(rng.choice([0, (1 << quotient) - 1, int(rng.integers(1 << quotient))]))
        operands.append((head, low, divisor))

    def present(operand):
        dut.head.value, dut.tail.value, dut.divisor.value = operand

    await _stream(
        dut, present, operands, quotient, lambda: int(dut.quotient.value),
        lambda o: ((o[0] << quotient) + o[1]) // o[2],
    )  # fmt: skip


@cocotb.test()
async def takes_roots(dut):
    """Roots of random values and of squares and their neighbours."""
    rng = np.random.default_rng(PARAMETERS["seed"])
    bits = PARAMETERS["root_bits"]
    operands = [int(rng.integers(1 << int(rng.integers(1, 2 * bits + 1)))) for _ in range(400)]
    roots = [int(rng.integers(1, 1 << bits)) for _ in range(400)] + [1, (1 << bits) - 1]
    operands += [root * root - step for root in roots for step in (0, 1)]
    operands += [0, (1 << 2 * bits) - 1]

    def present(operand):
        dut.value.value = operand

    await _stream(dut, present, operands, bits, lambda: int(dut.root.value), isqrt)
