"""Lists of operations on the control port, by names of registers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from signmask.hw.register_map import WORD_BYTES, RegisterMap


class Operations:
    """Operations for `server.execute`, and the registers that its answer holds."""

    def __init__(self, registers: RegisterMap) -> None:
        self.operations: list[list[Any]] = []
        self._registers, self._reads = registers, list[tuple[str, int]]()

    def write(self, name: str, value: int) -> None:
        """Write all words of a register."""
        register = self._registers[name]
        for word in range(register.words):
            self.operations.append(
                ["write", register.offset + WORD_BYTES * word, value >> 32 * word & 0xFFFFFFFF]
            )

    def read(self, name: str) -> None:
        """Read all words of a register."""
        register = self._registers[name]
        for word in range(register.words):
            self._add(name, register.offset + WORD_BYTES * word, word)

    def read_window(self, name: str, entries: int) -> None:
        """Read the first entries of a window, as NAME[entry].column."""
        window = {w.name: w for w in (self._registers.streams, self._registers.sources)}[name]
        for entry in range(entries):
            for column, title in enumerate(window.columns):
                at = window.offset + entry * window.stride + WORD_BYTES * column
                self._add(f"{name}[{entry}].{title}", at, 0)

    def _add(self, name: str, offset: int, word: int) -> None:
        self.operations.append(["read", offset])
        self._reads.append((name, word))

    def wait(self) -> None:
        """Wait for the interrupt."""
        self.operations.append(["wait"])

    def values(self, read: Sequence[int]) -> dict[str, int]:
        """The registers' values from the words that were read."""
        found: dict[str, int] = {}
        for (name, word), value in zip(self._reads, read, strict=True):
            found[name] = found.get(name, 0) | value << 32 * word
        return found
