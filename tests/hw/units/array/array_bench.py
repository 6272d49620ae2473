"""cocotb test of the PE array: random MATMULs against the simulator's results and cycles."""

import json
import os

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge, SimTimeoutError, with_timeout

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import Instruction
from signmask.sim.core import Core
from signmask.sim.counters import Counters
from signmask.sim.outlier_selector import OutlierSelector
from signmask.sim.pe_array import PeArray

PARAMETERS = json.loads(os.environ["PARAMETERS"])
PERIOD = 2  # nanoseconds
CONFIG = HardwareConfig.from_json(PARAMETERS["config"])


class Simulated:
    """The simulator's array and its scratchpads."""

    def __init__(self):
        counters = Counters((), (), CONFIG.inlier_bits)
        self.core = Core(CONFIG, np.zeros(0, np.uint8), 1024, counters)
        selector = OutlierSelector(CONFIG.inlier_bits, CONFIG.full_lanes)
        self.array = PeArray(self.core, selector)

    def matmul(self, fields):
        cost = self.array.matmul(fields)
        self.core.log.take()
        assert cost.occupied == cost.done
        return cost.done


def packed(values, bits):
    """An integer with the values side by side, the first lowest."""
    word = 0
    for i, value in enumerate(np.asarray(values).reshape(-1).tolist()):
        word |= (int(value) & (1 << bits) - 1) << i * bits
    return word


def geometry(rng):
    """Random sizes that fit the scratchpads."""
    n = CONFIG.group
    while True:
        g = dict(
            images=int(rng.integers(1, 4)), in_height=int(rng.integers(1, 7)),
            in_width=int(rng.integers(1, 7)), planes=int(rng.choice([1, 1, 2, 3])),
            kernel=int(rng.choice([1, 1, 2, 3, 3, 5])), step=int(rng.choice([1, 1, 2, 3])),
            padding=int(rng.integers(0, 4)), upsample=int(rng.choice([1, 1, 2])),
            blocks=int(rng.choice([1, 1, 2, 3, 4, 5])),
        )  # fmt: skip
        pointwise = rng.random() < 0.3
        if pointwise:
            g |= dict(kernel=1, step=1, padding=0, upsample=1)
        for out, size in (("out_height", "in_height"), ("out_width", "in_width")):
            span = g[size] * g["upsample"] + 2 * g["padding"] - g["kernel"]
            g[out] = span // g["step"] + 1
            if rng.random() < 0.2 and not pointwise:
                g[out] = int(rng.integers(1, 9))
        if rng.random() < 0.1:
            g |= dict(images=int(rng.integers(4, 20)), out_height=1, out_width=1)
        if min(g["out_height"], g["out_width"]) < 1:
            continue
        plane = g["images"] * g["in_height"] * g["in_width"]
        positions = g["images"] * g["out_height"] * g["out_width"]
        taps = g["kernel"] ** 2 * g["planes"]
        out_planes = -(-g["blocks"] * CONFIG.columns // n)
        stride, out_stride = plane + int(rng.integers(3)), positions + int(rng.integers(3))
        spare = (
            CONFIG.input_words - g["planes"] * stride,
            CONFIG.weight_words - g["blocks"] * taps,
            CONFIG.accumulator_words - out_planes * out_stride,
        )
        if min(spare) >= 0:
            places = [int(rng.integers(0, s + 1)) for s in spare]
            break
    return g | dict(
        input_stride=stride, accumulator_stride=out_stride, input=places[0], weight=places[1],
        accumulator=places[2], delta=int(rng.random() < 0.7), accumulate=int(rng.integers(2)),
        zero=int(rng.integers(-128, 128)),
    )  # fmt: skip


def operands(rng, words, delta):
    """Words with as many outliers as the cycles depend on, and with the extreme values."""
    n, m, k = CONFIG.group, CONFIG.full_lanes, CONFIG.inlier_bits
    if not delta:
        kind = rng.integers(3)
        if kind == 0:
            return rng.choice([-128, 127], (words, n))
        return rng.integers(-128, 128, (words, n))
    values = rng.integers(-(1 << k - 1), 1 << k - 1, (words, n))
    limit = int(rng.choice([0, m, m + 1, 2 * m, 2 * m + 1, 3 * m, 3 * m + 1, n]))
    exact = rng.random() < 0.5
    for word in values:
        count = min(n, limit if exact else int(rng.integers(0, limit + 1)))
        lanes = rng.permutation(n)[:count]
        wide = rng.integers(1 << k - 1, 256, count)
        edge = rng.choice([1 << k - 1, 255], count)
        wide = np.where(rng.random(count) < 0.3, edge, wide)
        word[lanes] = np.where(rng.random(count) < 0.5, wide, -1 - wide)
    return values


@cocotb.test()
async def random_instructions(dut):
    """Accumulators and cycles of every instruction are the simulator's."""
    rng = np.random.default_rng(PARAMETERS["seed"])
    sim, n, columns = Simulated(), CONFIG.group, CONFIG.columns
    core = sim.core
    Clock(dut.clk, PERIOD, unit="ns", impl="gpi").start()
    for signal in ("instruction__valid", "input_fill__en", "weight_fill__en",
                   "accumulator_fill__en", "look__en"):  # fmt: skip
        getattr(dut, signal).value = 0
    for name, lanes in (("input", n), ("weight", n * columns), ("accumulator", n)):
        getattr(dut, f"{name}_fill__lanes").value = (1 << lanes) - 1
    dut.rst.value = 1
    await FallingEdge(dut.clk)
    await FallingEdge(dut.clk)
    dut.rst.value = 0

    async def fill(name, at, words, bits):
        getattr(dut, f"{name}_fill__en").value = 1
        for i, word in enumerate(words):
            getattr(dut, f"{name}_fill__addr").value = at + i
            getattr(dut, f"{name}_fill__data").value = packed(word, bits)
            await FallingEdge(dut.clk)
        getattr(dut, f"{name}_fill__en").value = 0

    core.accumulator.data[:] = rng.integers(-(1 << 20), 1 << 20, core.accumulator.data.shape)
    await fill("accumulator", 0, core.accumulator.data, 32)
    core.input.data[:] = operands(rng, CONFIG.input_words, True)
    await fill("input", 0, core.input.data.astype(int), 9)
    core.weight.data[:] = rng.integers(-128, 128, core.weight.data.shape)
    await fill("weight", 0, core.weight.data, 8)
    total = 0
    for _ in range(PARAMETERS["instructions"]):
        fields = geometry(rng)
        plane = fields["images"] * fields["in_height"] * fields["in_width"]
        for p in range(fields["planes"]):
            at = fields["input"] + p * fields["input_stride"]
            core.input.data[at : at + plane] = operands(rng, plane, fields["delta"])
            await fill("input", at, core.input.data[at : at + plane].astype(int), 9)
        if rng.random() < 0.3:
            count = fields["blocks"] * fields["kernel"] ** 2 * fields["planes"]
            at, extreme = fields["weight"], rng.random() < 0.3
            new = rng.choice([-128, 127], (count, columns, n)) if extreme else rng.integers(
                -128, 128, (count, columns, n))  # fmt: skip
            core.weight.data[at : at + count] = new
            await fill("weight", at, new, 8)
        expected = sim.matmul(fields)
        assert int(dut.instruction__ready.value) == 1
        dut.instruction__payload.value = int.from_bytes(
            Instruction("MATMUL", fields).encode(), "little"
        )
        dut.instruction__valid.value = 1
        await FallingEdge(dut.clk)
        dut.instruction__valid.value = 0
        # The word is valid in the cycle of the start only.
        dut.instruction__payload.value = int.from_bytes(rng.bytes(32), "little")
        try:
            await with_timeout(RisingEdge(dut.done), PERIOD * (expected + 100), "ns")
        except SimTimeoutError:
            raise AssertionError(f"not done after {expected + 100} cycles: {fields}") from None
        await FallingEdge(dut.clk)
        await FallingEdge(dut.clk)
        assert int(dut.instruction__ready.value) == 1
        assert int(dut.done.value) == 0
        cycles = int(dut.cycles.value)
        assert cycles == expected, f"{cycles} cycles, simulator {expected}: {fields}"
        total += cycles
        dut.look__en.value = 1
        for address, word in enumerate(core.accumulator.data):
            dut.look__addr.value = address
            await FallingEdge(dut.clk)
            found, wanted = int(dut.look__data.value), packed(word, 32)
            assert found == wanted, f"word {address}: {found:x}, simulator {wanted:x}: {fields}"
        dut.look__en.value = 0
    dut._log.info("%d cycles", total)
