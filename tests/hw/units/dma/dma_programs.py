"""Random programs of the load and store units, and what the simulator makes of them."""

from dataclasses import dataclass, field, replace

import numpy as np

from signmask.hw.spec.config import NANO
from signmask.hw.spec.isa import FORMATS, Instruction
from signmask.sim import compressor
from signmask.sim.core import Core
from signmask.sim.counters import Counters
from signmask.sim.dma import Load, Store

SIZES = dict(
    input_words=256, weight_words=256, accumulator_words=256, mask_words=256, parameter_words=256,
    bitmap_words=40,
)  # fmt: skip
CONFIGS = {
    "nano": replace(NANO, name="nano", **SIZES),
    "wide": replace(NANO, name="wide", columns=32, axi_bytes=32, **SIZES),
    "narrow": replace(NANO, name="narrow", group=8, columns=4, **SIZES),
    "large": replace(NANO, name="large", group=64, columns=16, axi_bytes=64, **SIZES),
}
MEMORY = 1 << 20
PARAMETERS = 1 << 14  # bytes at the start of the memory that hold entries of 48 bits
SPACES = ("input", "weight", "accumulator", "segments", "corrections", "parameter")
NOW, LAST = 5, 3


@dataclass
class Program:
    """Instructions, the idle cycles before each, and what must come of them."""

    instructions: list = field(default_factory=list)
    gaps: list = field(default_factory=list)
    starts: list = field(default_factory=list)
    dones: list = field(default_factory=list)


class Writer:
    """Places areas in memory, at any byte."""

    def __init__(self, rng, memory):
        self.rng, self.memory, self.at = rng, memory, PARAMETERS

    def place(self, size):
        """Address of a new area."""
        at = self.at + int(self.rng.integers(64))
        if self.rng.random() < 0.3:  # near a boundary of 4 KiB
            at = -(-at // 4096) * 4096 - int(self.rng.integers(1, 40))
            at = max(at, self.at)
        self.at = at + size
        assert self.at < MEMORY
        return at

    def put(self, data):
        """Address of a new area with these bytes."""
        at = self.place(len(data))
        self.memory[at : at + len(data)] = data
        return at


def initial_memory(rng):
    memory = rng.integers(0, 256, MEMORY, dtype=np.uint8)
    limit = 1 << 47
    memory[:PARAMETERS] = rng.integers(-limit, limit, PARAMETERS // 8).view(np.uint8)
    return memory


def deltas(rng, words, group, bits, wide):
    """Words with outliers in some of them."""
    high, limit = 1 << (bits - 1), 1 << (8 * wide - 1)
    values = rng.integers(-high, high, (words, group))
    density = rng.choice([0, 0.02, 0.2, 1.0]) * (rng.random((words, 1)) < rng.choice([0.2, 1.0]))
    return np.where(
        rng.random((words, group)) < density, rng.integers(-limit, limit, (words, group)), values
    )


def instruction(name, **given):
    return Instruction(name, {f: 0 for f, _, _ in FORMATS[name].fields} | given)


def load_program(config, rng, memory, count):
    """Instructions of the load queue; memory is filled for them."""
    n, writer = config.group, Writer(rng, memory)
    pending, made = [], []

    def some(limit):
        return int(rng.integers(1, limit))

    def at(words, room=SIZES["accumulator_words"]):
        return int(rng.integers(0, room - words + 1))

    def outliers():
        made.append(instruction("LOAD_OUTLIERS", **pending.pop(0)))

    while len(made) < count:
        name = rng.choice([n for n in FORMATS if n.startswith("LOAD_")])
        words = some(24)
        kind = int(rng.integers(8))
        if name == "LOAD_WEIGHTS":
            words = some(6)
            address = writer.place(words * n * config.columns)
            made.append(instruction(name, address=address, words=words, weight=at(words)))
        elif name == "LOAD_KEYS":
            planes, tokens = some(4), some(2 * n)
            apart = int(rng.choice([n, n * some(5), some(3 * n) - 1]))
            stride = tokens * max(apart, n) + some(100)
            made.append(
                instruction(
                    name, address=writer.place(planes * stride), plane_stride=stride,
                    token_stride=apart, tokens=tokens, planes=planes, weight=some(50),
                    transpose=some(3) - 1,
                )
            )  # fmt: skip
        elif name == "LOAD_CODES":
            address = writer.place(words * n)
            made.append(instruction(name, address=address, words=words, input=at(words), kind=kind))
        elif name == "LOAD_PARAMETERS":
            words, entry = some(4), int(rng.choice([2, 4, 8]))
            room = PARAMETERS - 6 * 256 - words * n * 8
            made.append(
                instruction(
                    name, address=8 * some(room // 8), stride=8 * some(32), words=words,
                    step=int(rng.integers(3)), entry_bytes=entry, parameter=at(words),
                )
            )  # fmt: skip
        elif name == "LOAD_RAW":
            entry = int(rng.choice([1, 2, 4]))
            made.append(
                instruction(
                    name, address=writer.place(words * n * entry), words=words, kind=kind,
                    entry_bytes=entry, accumulator=at(words),
                )
            )  # fmt: skip
        elif name == "LOAD_MASK":
            residue = int(rng.integers(2))
            bits = int(rng.integers(1, 16) if residue else rng.integers(0, 4))
            made.append(
                instruction(
                    name, address=writer.place(words * n * bits // 8), words=words, bits=bits,
                    residue=residue, mask=at(words),
                )
            )  # fmt: skip
        elif name == "LOAD_DELTAS":
            while sum(p["words"] for p in pending) + words > config.bitmap_words:
                outliers()
            bits, wide = int(rng.integers(1, 16)), int(rng.choice([2, 4]))
            bits = min(bits, 8 * wide - 2)
            values = deltas(rng, words, n, bits, wide)
            area, listed = compressor.compress(values, bits, wide)
            shared = dict(
                list=writer.put(listed), words=words, wide_bytes=wide,
                to_mask=int(wide == 2 and rng.random() < 0.5), buffer=at(words), kind=kind,
            )  # fmt: skip
            made.append(instruction(name, address=writer.put(area), inlier_bits=bits, **shared))
            pending.append(shared)
        elif pending:
            outliers()
    while pending:
        outliers()
    return made


def store_program(config, rng, core, count):
    """Instructions of the store queue; the scratchpads are filled for them, a few words each."""
    n, writer, made = config.group, Writer(rng, np.zeros(MEMORY, np.uint8)), []
    limit = 1 << 47
    core.parameter.data[:] = rng.integers(-limit, limit, core.parameter.data.shape)
    quarter = SIZES["accumulator_words"] // 4
    for at, bits in enumerate((8, 16, 32)):
        high = 1 << (bits - 1)
        core.accumulator.data[at * quarter : (at + 1) * quarter] = rng.integers(
            -high, high, (quarter, n)
        )
    # Words that no instruction but STORE_DELTAS reads.
    rest = core.accumulator.data[3 * quarter :]
    for at in range(0, quarter, 8):
        rest[at : at + 8] = deltas(rng, 8, n, int(rng.choice([1, 4, 7, 12])), 2)
    while len(made) < count:
        name = rng.choice([n for n in FORMATS if n.startswith("STORE_")])
        words = int(rng.integers(1, 24))
        if name == "STORE_RAW":
            size = int(rng.integers(3))
            made.append(
                instruction(
                    name, address=writer.place(words * n << size), words=words,
                    entry_bytes=1 << size, kind=int(rng.integers(8)),
                    accumulator=size * quarter + int(rng.integers(quarter - words)),
                )
            )  # fmt: skip
        elif name == "STORE_PARAMETERS":
            words = int(rng.integers(1, 6))
            entry = int(rng.choice([2, 4, 8]))
            made.append(
                instruction(
                    name, address=writer.place(words * n * entry), words=words, entry_bytes=entry,
                    parameter=int(rng.integers(SIZES["parameter_words"] - words)),
                )
            )  # fmt: skip
        else:
            words = int(rng.choice([words, quarter]))  # beyond bitmap_words, too
            bits = int(rng.integers(1, 16))
            made.append(
                instruction(
                    name, address=writer.place(words * n * (1 + bits) // 8),
                    list=writer.place(words * n * 4), words=words, inlier_bits=bits,
                    wide_bytes=int(rng.choice([2, 4])),
                    accumulator=3 * quarter + int(rng.integers(quarter - words + 1)),
                )
            )  # fmt: skip
    return made


class Model:
    """The simulator's unit, its instructions started as the hardware's are."""

    def __init__(self, config, memory):
        self.counters = Counters((), (), config.inlier_bits)
        self.core = Core(config, memory, MEMORY, self.counters)
        self.core.now, self.core.last = NOW, LAST
        self.units = Load(self.core).instructions | Store(self.core).instructions

    def run(self, instructions, gaps):
        """Execute; instruction i is offered gaps[i] cycles after the start of the one before."""
        program = Program(instructions, gaps)
        offered = free = 0
        for item, gap in zip(instructions, gaps, strict=True):
            start = max(offered + gap, free)
            self.core.cycle = start
            cost = self.units[item.name](item.fields)
            self.core.log.take()
            program.starts.append(start)
            program.dones.append(start + cost.done - 1)
            offered, free = start + 1, start + cost.occupied
        return program
