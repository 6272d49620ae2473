"""Scratchpads: arrays of words with bounds checks and an access log."""

from __future__ import annotations

import numpy as np

from signmask.sim.errors import Fault
from signmask.sim.hazards import AccessLog


class Scratchpad:
    """`data` has shape (words, *word); `space` names it in messages and for races.

    Words of operands and weights are kept in the type that the array's BLAS product wants; their
    values are the integers of the specification.
    """

    def __init__(
        self, space: str, words: int, word: tuple[int, ...], dtype: type, log: AccessLog
    ) -> None:
        self.space, self.words = space, words
        self.data: np.ndarray = np.zeros((words, *word), dtype)
        self._log = log

    def _check(self, at: int, words: int, verb: str) -> None:
        if at < 0 or at + words > self.words:
            raise Fault(f"{verb} {self.space} words {at}..{at + words - 1} of {self.words}")

    def read(self, at: int, words: int) -> np.ndarray:
        """View of words [at, at + words); raises Fault outside the scratchpad."""
        self._check(at, words, "reads")
        self._log.reads.append((self.space, at, at + words))
        return self.data[at : at + words]

    def write(self, at: int, values: np.ndarray) -> None:
        """Write values of shape (words, *word); raises Fault outside the scratchpad."""
        words = len(values)
        self._check(at, words, "writes")
        self._log.writes.append((self.space, at, at + words))
        self.data[at : at + words] = values

    def read_planes(self, at: int, planes: int, words: int, stride: int) -> np.ndarray:
        """Copy or view (planes, words, *word) of planes `stride` words apart."""
        if stride == words or planes == 1:
            return self.read(at, planes * words).reshape(planes, words, *self.data.shape[1:])
        return np.stack([self.read(at + p * stride, words) for p in range(planes)])

    def write_planes(self, at: int, values: np.ndarray, stride: int) -> None:
        """Write (planes, words, *word) to planes `stride` words apart."""
        planes, words = values.shape[:2]
        if stride == words or planes == 1:
            self.write(at, values.reshape(planes * words, *values.shape[2:]))
            return
        for p in range(planes):
            self.write(at + p * stride, values[p])
