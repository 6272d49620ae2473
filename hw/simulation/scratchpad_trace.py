"""Content of the scratchpads over time, from the files that their memories write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from signmask.hw.spec.config import HardwareConfig


@dataclass(frozen=True)
class Space:
    """A scratchpad: words, lanes of a word, bits of a lane, and whether lanes are signed."""

    words: int
    lanes: int
    bits: int
    signed: bool


def spaces(config: HardwareConfig) -> Mapping[str, Space]:
    """The scratchpads by name."""
    n = config.group
    return {
        "input": Space(config.input_words, n, 9, True),
        "weight": Space(config.weight_words, config.columns * n, 8, True),
        "accumulator": Space(config.accumulator_words, n, 32, True),
        "segments": Space(config.mask_words, n, 3, False),
        "corrections": Space(config.mask_words, n, 16, True),
        "parameter": Space(config.parameter_words, n, 48, True),
        "row": Space(config.row_words, 1, 32, False),
    }


@dataclass
class Shadow:
    """What a scratchpad holds: `values` int64 (words, lanes); `known` bool, written so far."""

    space: Space
    path: Path
    values: np.ndarray = field(init=False)
    known: np.ndarray = field(init=False)
    _read: int = 0
    _waiting: list[tuple[int, int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        shape = (self.space.words, self.space.lanes)
        self.values, self.known = np.zeros(shape, np.int64), np.zeros(shape, bool)

    def read(self) -> None:
        """Take in the writes that the file got since the last call."""
        with self.path.open(encoding="ascii") as file:
            file.seek(self._read)
            lines = file.readlines()
            self._read = file.tell()
        for line in lines:
            cycle, address, lanes, data = line.split()
            self._waiting.append((int(cycle), int(address), int(lanes, 16), int(data, 16)))

    def advance(self, cycle: int) -> None:
        """Make the writes of all cycles up to and with `cycle`."""
        space, done = self.space, 0
        for when, address, lanes, data in self._waiting:
            if when > cycle:
                break
            done += 1
            raw = data.to_bytes(-(-space.lanes * space.bits // 8), "little")
            bits = np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")
            fields = bits[: space.lanes * space.bits].reshape(space.lanes, space.bits)
            values = fields.astype(np.int64) @ (np.int64(1) << np.arange(space.bits))
            if space.signed:
                values -= (fields[:, -1].astype(np.int64)) << space.bits
            chosen = np.array([lanes >> i & 1 for i in range(space.lanes)], bool)
            self.values[address, chosen] = values[chosen]
            self.known[address, chosen] = True
        del self._waiting[:done]
