"""The control port's registers: one table for the RTL, the manifest and the driver.

Offsets are in bytes; registers are little-endian words of 32 bits, wider ones take two, low half
first. A wide counter is whole only while no program runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import Queue, Traffic

WORD_BYTES = 4
IDENTITY = int.from_bytes(b"SMK1", "little")
ADDRESS_BITS, COUNT_BITS, STEP_BITS = 40, 24, 16  # of PROGRAM, COUNT, NOW and LAST
COUNTER_BITS, ENTRY_BITS = 48, 32  # of registers that count, and of counters in windows
BUSY, DONE, ILLEGAL = 1, 2, 4  # bits of STATUS
REGISTERS_END = 0x400

Access = Literal["read", "write", "read write", "read clear"]

_SETTINGS: tuple[tuple[str, int, Access, str], ...] = (
    ("IDENTITY", 32, "read", "the bytes SMK1"),
    ("START", 1, "write", "1 starts the program, unless one runs; clears all counters and STATUS"),
    ("STATUS", 3, "read", "bit 0: a program runs; bit 1: it has ended; bit 2: it had an opcode "
     "that is none"),
    ("INTERRUPT_ENABLE", 1, "read write", "1: the interrupt follows INTERRUPT"),
    ("INTERRUPT", 1, "read clear", "1: a program has ended; writing 1 clears it"),
    ("NOW", STEP_BITS, "read write", "index of this step"),
    ("LAST", STEP_BITS, "read write", "index of the step before"),
    ("AFTER_DENSE", 1, "read write", "1: the step before was dense"),
    ("PROGRAM", ADDRESS_BITS, "read write", "address of the first instruction, a multiple of 64 "
     "and of the width of the bus"),
    ("COUNT", COUNT_BITS, "read write", "number of instructions"),
    ("CYCLES", COUNTER_BITS, "read", "cycles from the start to the end of the program"),
)  # fmt: skip


@dataclass(frozen=True)
class Register:
    """`width` bits at `offset`. Access "read clear": writing 1 clears. Registers that can be
    written ignore it while a program runs, those of the interrupt excepted."""

    name: str
    offset: int
    width: int
    access: Access
    description: str

    @property
    def words(self) -> int:
        """Words of the bus that it takes."""
        return -(-self.width // (8 * WORD_BYTES))


@dataclass(frozen=True)
class Window:
    """`entries` counters of several `columns`, one word each; entry i starts `stride` bytes after
    entry i - 1."""

    name: str
    offset: int
    entries: int
    stride: int
    columns: tuple[str, ...]
    description: str


@dataclass(frozen=True)
class RegisterMap:
    """Registers and windows of a configuration."""

    registers: tuple[Register, ...]
    streams: Window
    sources: Window

    @cached_property
    def _by_name(self) -> Mapping[str, Register]:
        return {register.name: register for register in self.registers}

    def __getitem__(self, name: str) -> Register:
        return self._by_name[name]

    @property
    def address_bits(self) -> int:
        """Width of the port's addresses."""
        return (self.sources.offset + self.sources.entries * self.sources.stride - 1).bit_length()

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "address_bits": self.address_bits,
            "registers": [asdict(register) for register in self.registers],
            "windows": [asdict(self.streams), asdict(self.sources)],
        }


def traffic_names() -> tuple[str, ...]:
    """Kinds of bytes, in the order of their registers."""
    return (*(kind.name for kind in Traffic), "INSTRUCTIONS", "NEAR_DATA")


def register_map(config: HardwareConfig) -> RegisterMap:
    """The control port of a configuration."""
    counters: list[tuple[str, int, Access, str]] = [
        (f"BUSY_{queue.name}", COUNTER_BITS, "read",
         f"cycles in which an instruction kept the {queue.name.lower()} unit from the next one")
        for queue in Queue
    ] + [
        (f"TRAFFIC_{name}", COUNTER_BITS, "read", f"bytes moved: {name.lower().replace('_', ' ')}")
        for name in traffic_names()
    ]  # fmt: skip
    registers, at = [], 0
    for name, width, access, description in (*_SETTINGS, *counters):
        size = WORD_BYTES if width <= 8 * WORD_BYTES else 2 * WORD_BYTES
        at = -(-at // size) * size
        registers.append(Register(name, at, width, access, description))
        at += size
    # Windows of a power of two are told apart by address bits.
    entries = max(2, 1 << (config.counter_entries - 1).bit_length())
    streams = max(REGISTERS_END, WORD_BYTES * entries)
    stride = 8 * WORD_BYTES
    sources = max(stride * entries, 2 * streams)
    return RegisterMap(
        tuple(registers),
        Window(
            "STREAMS", streams, entries, WORD_BYTES, ("saturated",),
            "saturated elements of each stream, by its number in the sorted names",
        ),
        Window(
            "SOURCES", sources, entries, stride,
            ("zero", "inlier", "outlier", "clipped", "elements", "segment_changes", "counted"),
            "encoded deltas of each encoding or source, by its number in the sorted names; "
            "counted: 1 if there were any",
        ),
    )  # fmt: skip
