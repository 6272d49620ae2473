"""Main memory: flat bytes, little-endian, with bounds checks."""

from __future__ import annotations

import numpy as np

from signmask.sim.errors import Fault
from signmask.sim.hazards import AccessLog


class Memory:
    """`data` is the content, uint8; every access is checked and logged."""

    def __init__(self, image: np.ndarray, size: int, log: AccessLog) -> None:
        self.data = np.zeros(max(size, image.size), np.uint8)
        self.data[: image.size] = image.reshape(-1)
        self._log = log

    def _check(self, address: int, size: int, verb: str) -> None:
        if address < 0 or address + size > self.data.size:
            raise Fault(f"{verb} memory bytes {address}..{address + size - 1} of {self.data.size}")

    def read(self, address: int, count: int, dtype: str = "u1") -> np.ndarray:
        """View of `count` entries of `dtype` at a byte address; raises Fault outside memory."""
        size = count * np.dtype(dtype).itemsize
        self._check(address, size, "reads")
        if size:
            self._log.reads.append(("memory", address, address + size))
        return self.data[address : address + size].view(np.dtype(dtype).newbyteorder("<"))

    def write(self, address: int, values: np.ndarray) -> None:
        """Write an array's little-endian bytes; raises Fault outside memory."""
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        raw = little.reshape(-1).view(np.uint8)
        self._check(address, raw.size, "writes")
        if raw.size:
            self._log.writes.append(("memory", address, address + raw.size))
        self.data[address : address + raw.size] = raw
