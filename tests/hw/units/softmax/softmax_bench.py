"""cocotb tests of SOFTMAX and NORMALISE_ROWS: random instructions against the simulator."""

import json
import os

import cocotb
import numpy as np

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import Instruction
from signmask.sim.core import Core
from signmask.sim.counters import Counters
from signmask.sim.softmax import Softmax
from tests.hw.units.normalisation.pads import Device, Pad

PARAMETERS = json.loads(os.environ["PARAMETERS"])
CONFIG = HardwareConfig.from_json(PARAMETERS["config"])
LARGEST_RECIPROCAL = (1 << 30) // 127


def signed(rng, bits, shape):
    """Signed numbers of `bits` bits, the extremes among them."""
    high = (1 << bits - 1) - 1
    edge = rng.choice([-high - 1, high], shape)
    values = rng.integers(-high - 1, high, shape, endpoint=True)
    return np.where(rng.random(shape) < 0.1, edge, values)


class Bench:
    """The simulator's unit and scratchpads beside those of the device."""

    def __init__(self, dut, rng):
        self.rng = rng
        self.core = Core(CONFIG, np.zeros(0, np.uint8), 64, Counters(("a",), ("s",), 3))
        self.units = Softmax(self.core).instructions
        n = CONFIG.group
        self.pads = {
            "accumulator": Pad(np.zeros((0, n)), 32),
            "input": Pad(np.zeros((0, n)), 9, (), ("operand",)),
            "row": Pad(np.zeros((0, 1)), 32, (), ("row_write",)),
        }
        if hasattr(dut, "addend__en"):
            self.pads["accumulator"].reads = ("accumulator", "addend")
        else:
            self.pads["accumulator"].reads = ("accumulator",)
            self.pads["accumulator"].writes = ("result",)
            self.pads["row"].reads, self.pads["row"].writes = ("row",), ()
            self.pads["input"].writes = ()
        self.device = Device(dut, self.pads.values(), rng)
        dut.instruction__valid.value = 0

    def _data(self, name):
        data = getattr(self.core, name).data
        return data.reshape(len(data), -1).astype(np.int64)

    async def execute(self, name, fields):
        """Run on both and compare; the scratchpads of the core hold the operands."""
        for key, pad in self.pads.items():
            pad.data = self._data(key).copy()
        cost = self.units[name](fields)
        self.core.log.take()
        cycles = await self.device.execute(Instruction(name, fields).encode())
        for key, pad in self.pads.items():
            wanted = self._data(key)
            differ = np.flatnonzero((pad.data != wanted).any(axis=1))
            assert not differ.size, (
                f"{key} word {differ[0]} is {pad.data[differ[0]]}, simulator "
                f"{wanted[differ[0]]}: {name} {fields}"
            )
        assert cycles == cost.done == cost.occupied, f"{cycles} cycles, {cost}: {name} {fields}"

    def tokens(self, planes):
        """A number of rows that fits."""
        limit = min(CONFIG.accumulator_words // (2 * planes), CONFIG.row_words)
        return min(int(self.rng.choice([1, 2, 3, self.rng.integers(1, 20)])), limit)

    def place(self, words, depth):
        """A random start of `words` words."""
        return int(self.rng.integers(0, depth - words + 1))


@cocotb.test()
async def softmax(dut):
    """Codes, reciprocals and cycles of scores of every magnitude."""
    rng = np.random.default_rng(PARAMETERS["seed"])
    bench = Bench(dut, rng)
    await bench.device.reset()
    n = CONFIG.group
    for _ in range(PARAMETERS["instructions"]):
        keys = int(rng.choice([1, n - 1, n, n + 1, rng.integers(1, 5 * n)]))
        planes = -(-keys // n)
        tokens = bench.tokens(planes)
        stride = tokens + int(rng.integers(0, 3))
        bits = int(rng.choice([1, 4, 12, 20, 32]))
        bench.core.accumulator.data[:] = signed(rng, bits, bench.core.accumulator.data.shape)
        shift = int(rng.choice([0, 1, max(0, bits + 6), 22, 48, 63]))
        await bench.execute(
            "SOFTMAX",
            dict(
                accumulator=bench.place(planes * stride, CONFIG.accumulator_words), stride=stride,
                tokens=tokens, keys=keys, multiplier=int(rng.choice([0, 1, 28833, 65535])),
                shift=shift, input=bench.place(planes * tokens, CONFIG.input_words),
                rows=bench.place(tokens, CONFIG.row_words),
            ),
        )  # fmt: skip


@cocotb.test()
async def normalise_rows(dut):
    """Codes and cycles of products and reciprocals at their limits."""
    rng = np.random.default_rng(PARAMETERS["seed"])
    bench = Bench(dut, rng)
    await bench.device.reset()
    for _ in range(PARAMETERS["instructions"]):
        planes = int(rng.integers(1, 5))
        tokens = bench.tokens(planes)
        strides = [tokens + int(rng.integers(0, 3)) for _ in range(2)]
        bits = int(rng.choice([4, 16, 24, 32]))
        bench.core.accumulator.data[:] = signed(rng, bits, bench.core.accumulator.data.shape)
        row = rng.integers(0, LARGEST_RECIPROCAL, CONFIG.row_words, endpoint=True)
        row >>= rng.integers(0, 20, row.shape)
        row[rng.random(row.shape) < 0.1] = LARGEST_RECIPROCAL
        bench.core.row.data[:] = row
        half = CONFIG.accumulator_words // 2
        source, target = (bench.place(planes * stride, half) for stride in strides)
        if rng.random() < 0.5:
            source += half
        else:
            target += half
        await bench.execute(
            "NORMALISE_ROWS",
            dict(
                accumulator=source, stride=strides[0], tokens=tokens, planes=planes,
                rows=bench.place(tokens, CONFIG.row_words),
                multiplier=int(rng.choice([0, 1, 28271, 65535])),
                shift=int(rng.choice([0, 1, bits, 29, 40, 63])), zero=int(rng.integers(-128, 128)),
                output=target, output_stride=strides[1],
            ),
        )  # fmt: skip
