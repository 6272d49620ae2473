"""What the host writes into and reads from the memory of an accelerator, simulated or built."""

from __future__ import annotations

import numpy as np

from signmask.hw.spec.container import Program
from signmask.hw.spec.memory_map import MemoryMap, Region


class HostMemory:
    """Places and layouts of a program's input codes and output accumulators.

    Its methods raise `error`, the exception type of the backend, for codes of another shape and
    for a program whose memory map lacks a region.
    """

    def __init__(self, program: Program, error: type[Exception]) -> None:
        self._program, self._error = program, error
        self.map = MemoryMap.from_json(program.memory_map)
        linears = program.network.linears.values()
        self._output = next(linear for linear in linears if not linear.out)

    def region(self, name: str) -> Region:
        """A region by name."""
        if name not in self.map:
            raise self._error(
                f"the program's memory map has no region '{name}'; compile the program again."
            )
        return self.map[name]

    def input_words(self, codes: np.ndarray) -> np.ndarray:
        """int8 (planes, words, group) for the region 'input', from int8 codes (batch, height,
        width, channels), padded with zeros."""
        network, n = self._program.network, self._program.config.group
        source = network.sources[network.input]
        shape = (self._program.batch, source.height, source.width, source.channels)
        if codes.shape != shape or codes.dtype != np.int8:
            raise self._error(
                f"input codes are {codes.dtype} {codes.shape}; the program takes int8 {shape}."
            )
        planes = -(-source.channels // n)
        padded = np.zeros((*shape[:3], planes * n), np.int8)
        padded[..., : source.channels] = codes
        return padded.reshape(-1, planes, n).transpose(1, 0, 2)

    @property
    def output_entries(self) -> int:
        """int32 entries of the region 'output' that hold results."""
        linear, n = self._output, self._program.config.group
        positions = self._program.batch * linear.out_height * linear.out_width
        return -(-linear.out_channels // n) * positions * n

    def accumulators(self, words: np.ndarray) -> np.ndarray:
        """int32 (batch, height, width, channels) from the entries of the region 'output'."""
        linear, n, batch = self._output, self._program.config.group, self._program.batch
        positions = batch * linear.out_height * linear.out_width
        planes = -(-linear.out_channels // n)
        channels = words.reshape(planes, positions, n).transpose(1, 0, 2).reshape(positions, -1)
        shape = (batch, linear.out_height, linear.out_width, linear.out_channels)
        # A copy: the next step writes the same memory.
        return np.array(channels[:, : linear.out_channels], np.int32, order="C").reshape(shape)
