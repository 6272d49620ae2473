"""cocotb tests of the example unit; parameters come from the environment as JSON."""

import json
import os

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

PARAMETERS = json.loads(os.environ["PARAMETERS"])


@cocotb.test()
async def accumulates(dut):
    """The sum of random increments, with random gaps, modulo the width."""
    rng = np.random.default_rng(PARAMETERS["seed"])
    Clock(dut.clk, 1, unit="ns", impl="gpi").start()
    dut.rst.value = 1
    dut.en.value = 0
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    dut.rst.value = 0
    total, range_ = 0, 1 << PARAMETERS["width"]
    for _ in range(300):
        en, step = int(rng.integers(2)), int(rng.integers(-8, 8))
        dut.en.value, dut.step.value = en, step & 15
        await RisingEdge(dut.clk)
        # What is read now is the value of the cycle that ends with this edge.
        assert dut.total.value.to_signed() == (total + range_ // 2) % range_ - range_ // 2
        total += step if en else 0


@cocotb.test()
async def fails(dut):
    """A test that does not hold."""
    Clock(dut.clk, 1, unit="ns", impl="gpi").start()
    await RisingEdge(dut.clk)
    assert dut.total.value.to_signed() == 1, "total is not one"
