"""What the units of the machine share: configuration, memories, step registers, counters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from signmask.hw.spec.config import HardwareConfig
from signmask.sim.counters import Counters
from signmask.sim.hazards import AccessLog
from signmask.sim.memory import Memory
from signmask.sim.scratchpad import Scratchpad

Fields = Mapping[str, int]


class Cost(NamedTuple):
    """Cycles that an instruction occupies its unit, and from its start until it is done."""

    occupied: int
    done: int


Execute = Callable[[Fields], Cost]


class Core:
    """Memories and registers of one machine.

    Word shapes and types: input float32 (n,), weight int8 (columns, n), accumulator int32 (n,),
    segments uint8 (n,) and corrections int16 (n,) of the mask scratchpad, parameter int64 (n,),
    row int64 (). `now` and `last` are the step registers, `after_dense` says that the step before
    was dense, `cycle` is the cycle in which the instruction being executed starts, in run
    number `run`.
    """

    def __init__(
        self, config: HardwareConfig, image: np.ndarray, memory_size: int, counters: Counters
    ) -> None:
        self.config, self.counters = config, counters
        self.log = log = AccessLog()
        n = config.group
        self.memory = Memory(image, memory_size, log)
        self.input = Scratchpad("input", config.input_words, (n,), np.float32, log)
        self.weight = Scratchpad("weight", config.weight_words, (config.columns, n), np.int8, log)
        self.accumulator = Scratchpad("accumulator", config.accumulator_words, (n,), np.int32, log)
        self.segments = Scratchpad("segment", config.mask_words, (n,), np.uint8, log)
        self.corrections = Scratchpad("correction", config.mask_words, (n,), np.int16, log)
        self.parameter = Scratchpad("parameter", config.parameter_words, (n,), np.int64, log)
        self.row = Scratchpad("row", config.row_words, (), np.int64, log)
        self.now = self.last = 0
        self.after_dense = True
        self.cycle = 0
        self.run = 0

    def register(self, step: int) -> int:
        """Value of the step register that `isa.Step` numbers."""
        return (0, self.now, self.last)[step]
