"""Hand-written programs for the tests of the simulator."""

from dataclasses import replace

import numpy as np

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import FORMATS, Instruction, Queue
from signmask.sim import sequencer
from signmask.sim.core import Core
from signmask.sim.counters import Counters
from signmask.sim.dma import Load, Store
from signmask.sim.near_data_engine import NearDataEngine
from signmask.sim.outlier_selector import OutlierSelector
from signmask.sim.pe_array import PeArray
from signmask.sim.sfu import Sfu
from signmask.sim.softmax import Softmax

CONFIG = HardwareConfig(
    "test", rows=4, columns=8, group=16, input_words=512, weight_words=512, accumulator_words=512,
    mask_words=256, parameter_words=256, row_words=64, memory_latency=10,
)  # fmt: skip


def instruction(name, waits=(), signals=(), **fields):
    """An instruction whose absent fields are 0; waits and signals are queue names."""
    given = {field: 0 for field, _, _ in FORMATS[name].fields} | fields
    made = Instruction(
        name, given, frozenset(Queue[q] for q in waits), frozenset(Queue[q] for q in signals)
    )
    return Instruction.decode(made.encode())  # so that fields that do not fit fail


class Bench:
    """A core with all units and an empty memory."""

    def __init__(self, config=CONFIG, memory=1 << 16, sources=("a", "b"), streams=("s", "t"), **kw):
        self.config = replace(config, **kw)
        self.counters = Counters(sources, streams, self.config.inlier_bits)
        self.core = Core(self.config, np.zeros(0, np.uint8), memory, self.counters)
        selector = OutlierSelector(self.config.inlier_bits, self.config.full_lanes)
        self.units = {}
        for unit in (
            Load(self.core), Store(self.core), PeArray(self.core, selector),
            Sfu(self.core, selector), Softmax(self.core), NearDataEngine(self.core, selector),
        ):  # fmt: skip
            self.units |= unit.instructions

    def execute(self, name, **fields):
        """Execute one instruction; returns its cost."""
        made = instruction(name, **fields)
        cost = self.units[name](made.fields)
        self.core.log.take()
        return cost

    def run(self, instructions, check_races=True, trace=None):
        """Run a program; returns its timeline."""
        sequence = sequencer.Sequence("test", instructions, self.units, self.config)
        return sequencer.run(sequence, self.core, check_races, trace)

    def put(self, address, values, dtype):
        """Write values into memory; returns their size in bytes."""
        raw = np.asarray(values).astype(dtype).reshape(-1).view(np.uint8)
        self.core.memory.data[address : address + raw.size] = raw
        return raw.size

    def get(self, address, count, dtype):
        """Values of memory."""
        size = count * np.dtype(dtype).itemsize
        return self.core.memory.data[address : address + size].view(dtype).copy()
