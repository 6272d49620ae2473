"""cocotb test of NORMALISE_TOKENS: random instructions against the simulator."""

import json
import os

import cocotb
import numpy as np

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import Instruction
from signmask.sim.core import Core
from signmask.sim.counters import Counters
from signmask.sim.outlier_selector import OutlierSelector
from signmask.sim.sfu import Sfu
from tests.hw.units.normalisation.pads import Device, Pad

PARAMETERS = json.loads(os.environ["PARAMETERS"])
CONFIG = HardwareConfig.from_json(PARAMETERS["config"])
N = CONFIG.group


def tokens_of(rng, tokens, channels, bits):
    """Values (tokens, channels) of at most `bits` signed bits: rows of noise around an offset, of
    zeros, of one value, of a lone value, and of extremes."""
    high = (1 << bits - 1) - 1
    values = rng.integers(-high - 1, high, (tokens, channels), endpoint=True)
    values >>= rng.integers(0, max(1, bits // 2), (tokens, 1))
    values = np.clip(values + rng.integers(-high - 1, high, (tokens, 1)) // 2, -high - 1, high)
    kind = rng.integers(0, 10, tokens)
    values[kind == 0] = 0
    values[kind == 1] = values[kind == 1, :1]
    values[kind == 2, 1:] = 0
    values[kind == 3] = rng.choice([-high - 1, high], (int((kind == 3).sum()), channels))
    return values


def legal_stat_shift(values, count, epsilon):
    """The least shift that keeps every token's sum of squares within the unit's registers."""
    for shift in range(32):
        shifted = (values >> shift).astype(object)
        if count * int((shifted * shifted).sum(axis=1).max()) + epsilon < 1 << 63:
            return shift
    raise AssertionError("no shift is legal")


class Bench:
    """The simulator's unit and accumulator scratchpad beside the device's."""

    def __init__(self, dut, rng):
        self.rng = rng
        self.core = Core(CONFIG, np.zeros(0, np.uint8), 64, Counters(("a",), ("s",), 3))
        selector = OutlierSelector(CONFIG.inlier_bits, CONFIG.full_lanes)
        self.unit = Sfu(self.core, selector).instructions["NORMALISE_TOKENS"]
        self.pad = Pad(np.zeros((0, N)), 32, ("accumulator", "addend"), ("result",))
        self.device = Device(dut, [self.pad], rng)
        dut.instruction__valid.value = 0

    async def execute(self, fields):
        """Run on both and compare; the scratchpad of the core holds the operands."""
        held = self.core.accumulator.data
        self.pad.data = held.astype(np.int64)
        cost = self.unit(fields)
        self.core.log.take()
        cycles = await self.device.execute(Instruction("NORMALISE_TOKENS", fields).encode())
        differ = np.flatnonzero((self.pad.data != held).any(axis=1))
        assert not differ.size, (
            f"word {differ[0]} is {self.pad.data[differ[0]]}, simulator {held[differ[0]]}: {fields}"
        )
        assert cycles == cost.done == cost.occupied, f"{cycles} cycles, {cost}: {fields}"

    def instruction(self):
        """Fields of a random legal instruction, whose values are in the scratchpad."""
        rng, half = self.rng, CONFIG.accumulator_words // 2
        planes = int(rng.choice([1, 1, 2, 3, 7]))
        tokens = min(int(rng.choice([1, 2, 3, rng.integers(1, 40)])), half // (planes + 1))
        channels = int(rng.integers((planes - 1) * N + 1, planes * N, endpoint=True))
        bits = int(rng.choice([1, 8, 16, 16, 24, 32]))
        values = tokens_of(rng, tokens, channels, bits)
        count = channels if rng.random() < 0.8 else int(rng.integers(channels, 65536))
        epsilon = 1 + int(rng.integers(0, (1 << int(rng.choice([1, 1, 12, 47]))) - 1))
        strides = [tokens + int(rng.integers(0, 2)) for _ in range(2)]
        places = [int(rng.integers(0, half - planes * stride + 1)) for stride in strides]
        places[int(rng.integers(2))] += half
        if rng.random() < 0.4:
            places[1], strides[1] = places[0], strides[0]
        words = np.zeros((tokens, planes * N), np.int64)
        words[:, :channels] = values
        held = self.core.accumulator.data
        held[:] = rng.integers(-(1 << 31), 1 << 31, held.shape)
        for p, plane in enumerate(words.reshape(tokens, planes, N).transpose(1, 0, 2)):
            held[places[0] + p * strides[0] :][:tokens] = plane
        least = legal_stat_shift(values, count, epsilon)
        return dict(
            accumulator=places[0], stride=strides[0], tokens=tokens, planes=planes, count=count,
            epsilon=epsilon, stat_shift=min(31, least + int(rng.choice([0, 0, 0, 1, 4]))),
            shift=int(rng.choice([24, 25, 28, 32, 40, 54])), uncentred=int(rng.random() < 0.3),
            output=places[1], output_stride=strides[1],
        )  # fmt: skip


@cocotb.test()
async def normalise_tokens(dut):
    """Results and cycles of tokens of every kind and size."""
    rng = np.random.default_rng(PARAMETERS["seed"])
    bench = Bench(dut, rng)
    await bench.device.reset()
    for _ in range(PARAMETERS["instructions"]):
        await bench.execute(bench.instruction())
