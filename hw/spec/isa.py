"""Instruction set: encodings, assembler and disassembler (semantics: `docs/isa.md`).

An instruction is 32 bytes, little-endian: opcode, the queues whose token it waits for, the queues
that get a token when it is done, then the fields of its opcode. The near-data engine's
instructions name a descriptor, an array of int64 in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

INSTRUCTION_BYTES = 32
WAITS_AT, SIGNALS_AT, FIELDS_AT = 8, 13, 18  # first bits, after the opcode


class IsaError(ValueError):
    """A field that does not fit, or bytes that are no instruction."""


class Queue(IntEnum):
    """In-order instruction queues; tokens are counted for each ordered pair of queues."""

    LOAD = 0
    ARRAY = 1
    VECTOR = 2
    STORE = 3
    ENGINE = 4


class Traffic(IntEnum):
    """What the bytes of a transfer are, for the counters."""

    WEIGHTS = 0
    PARAMETERS = 1
    RAW = 2  # raw activations and accumulators
    CODES = 3  # int8 codes: input, attention operands, previous codes of a restoring boundary
    MASKS = 4
    CORRECTIONS = 5
    DELTAS = 6  # dy on its way to the near-data engine
    SPILLS = 7  # dy on its way back for a later consumer


class Step(IntEnum):
    """Which step register is multiplied by `stride` and added to a parameter address."""

    NONE = 0
    NOW = 1
    LAST = 2


@dataclass(frozen=True)
class Format:
    """Queue and fields (name, bits, signed) of one opcode."""

    opcode: int
    queue: Queue
    fields: tuple[tuple[str, int, bool], ...]


def _format(opcode: int, queue: Queue, text: str) -> Format:
    """`text` lists fields as name:bits, with a leading - for signed ones."""
    fields = []
    for item in text.split():
        name, bits = item.split(":")
        fields.append((name.lstrip("-"), int(bits), name.startswith("-")))
    if sum(bits for _, bits, _ in fields) > INSTRUCTION_BYTES * 8 - FIELDS_AT:
        raise IsaError(f"opcode {opcode}: fields exceed {INSTRUCTION_BYTES} bytes.")
    return Format(opcode, queue, tuple(fields))


FORMATS: dict[str, Format] = {
    "LOAD_WEIGHTS": _format(1, Queue.LOAD, "address:40 words:20 weight:20"),
    "LOAD_KEYS": _format(
        2, Queue.LOAD,
        "address:40 plane_stride:24 token_stride:24 tokens:16 planes:8 weight:20 transpose:1",
    ),
    "LOAD_CODES": _format(3, Queue.LOAD, "address:40 words:24 input:24 kind:4"),
    "LOAD_PARAMETERS": _format(
        4, Queue.LOAD, "address:40 stride:24 step:2 words:16 entry_bytes:4 parameter:16"
    ),
    "LOAD_RAW": _format(5, Queue.LOAD, "address:40 words:24 entry_bytes:4 accumulator:24 kind:4"),
    "LOAD_DELTAS": _format(
        6, Queue.LOAD,
        "address:40 list:40 words:24 inlier_bits:5 wide_bytes:4 to_mask:1 buffer:24 kind:4",
    ),
    "LOAD_MASK": _format(7, Queue.LOAD, "address:40 words:24 bits:4 residue:1 mask:24"),
    "LOAD_OUTLIERS": _format(
        8, Queue.LOAD, "list:40 words:24 wide_bytes:4 to_mask:1 buffer:24 kind:4"
    ),
    "MATMUL": _format(
        16, Queue.ARRAY,
        "input:20 input_stride:20 images:6 in_height:11 in_width:11 planes:9 kernel:3 step:2 "
        "padding:2 upsample:2 out_height:11 out_width:11 blocks:9 weight:18 accumulator:20 "
        "accumulator_stride:20 delta:1 accumulate:1 -zero:8",
    ),
    "REQUANTISE": _format(
        32, Queue.VECTOR,
        "accumulator:20 words:20 planes:8 images:6 multiplier:12 shift:6 has_table:1 has_last:1 "
        "now:12 last:12 has_add:1 add:20 bits:6 has_sums:1 sums:12 stat_shift:4 lanes:8 "
        "stream:12",
    ),
    "CONSTANTS": _format(
        33, Queue.VECTOR,
        "record:12 gain:12 offset:12 sums_0:12 sums_1:12 sums_2:12 sums_3:12 constants:12",
    ),
    "ENCODE_RAW": _format(
        34, Queue.VECTOR,
        "accumulator:20 words:20 planes:8 images:6 constants:12 constants_stride:10 "
        "shared_constants:1 segments:12 z_shift:6 code_shift:6 -low:8 -high:8 codes:20 input:20 "
        "difference:1 previous:20 spill:1 lanes:8 source:12",
    ),
    "ENCODE_MASK": _format(
        35, Queue.VECTOR,
        "accumulator:20 words:20 planes:8 images:6 gain:12 shared_constants:1 segments:12 "
        "z_shift:6 code_shift:6 mask:20 loop:2 carry_bits:4 input:20 spill:1 lanes:8 source:12",
    ),
    "ENCODE_SOURCE": _format(
        36, Queue.VECTOR,
        "accumulator:20 words:20 planes:8 input:20 difference:1 previous:20 track:1 spill:1 "
        "lanes:8 source:12",
    ),
    "QUANTISE": _format(37, Queue.VECTOR, "accumulator:20 words:20 multiplier:16 shift:6"),
    "SOFTMAX": _format(
        38, Queue.VECTOR,
        "accumulator:20 stride:20 tokens:16 keys:16 multiplier:16 shift:6 input:20 rows:16",
    ),
    "NORMALISE_ROWS": _format(
        39, Queue.VECTOR,
        "accumulator:20 stride:20 tokens:16 planes:8 rows:16 multiplier:16 shift:6 -zero:8 "
        "output:20 output_stride:20",
    ),
    "COPY": _format(40, Queue.VECTOR, "accumulator:20 words:20 output:20"),
    "NORMALISE_TOKENS": _format(
        41, Queue.VECTOR,
        "accumulator:20 stride:20 tokens:16 planes:8 count:16 epsilon:47 stat_shift:5 shift:6 "
        "uncentred:1 output:20 output_stride:20",
    ),
    "MULTIPLY": _format(
        42, Queue.VECTOR,
        "accumulator:20 other:20 words:20 -zero_a:8 -zero_b:8 multiplier:16 shift:6 -zero:8 "
        "output:20",
    ),
    "STORE_RAW": _format(
        48, Queue.STORE, "address:40 words:24 entry_bytes:4 accumulator:24 kind:4"
    ),
    "STORE_DELTAS": _format(
        49, Queue.STORE, "address:40 list:40 words:24 inlier_bits:5 wide_bytes:4 accumulator:24"
    ),
    "STORE_PARAMETERS": _format(50, Queue.STORE, "address:40 words:16 entry_bytes:4 parameter:16"),
    "PREPARE": _format(64, Queue.ENGINE, "descriptor:40"),
    "UPDATE_CODES": _format(65, Queue.ENGINE, "descriptor:40"),
    "UPDATE_STREAM": _format(66, Queue.ENGINE, "descriptor:40"),
    "READ": _format(67, Queue.ENGINE, "descriptor:40"),
}  # fmt: skip
NAMES = {f.opcode: name for name, f in FORMATS.items()}

LOOPS = ("closed", "open", "carry")
NORMS = ("affine", "trend", "calibrated")
MAX_PARTS = 4

_PART = "y y_bytes sums planes channels dy dy_list dy_bits dy_chunk"
BOUNDARY_FIELDS: tuple[str, ...] = tuple(
    "source images positions planes norm_stride parts loop norm spill "
    "x_hat segments segment_bits corrections correction_list correction_bits residue carry_bits "
    "gain table z_shift code_shift low high "
    "groups count epsilon gain_shift mean_shift stat_shift norm_gain norm_offset "
    "cal_mean cal_inverse cal_sigma cal_a cal_b cal_stride".split()
) + tuple(f"{name}_{part}" for part in range(MAX_PARTS) for name in _PART.split())
STREAM_FIELDS: tuple[str, ...] = tuple(
    "stream images positions planes channels y y_bytes sums stat_shift dy dy_list dy_bits dy_chunk "
    "codes multiplier shift".split()
)

# What CONSTANTS needs of a boundary, as parameter entries.
NORM_RECORD: tuple[str, ...] = tuple(
    "images planes parts groups count epsilon gain_shift mean_shift".split()
) + tuple(f"{name}_{part}" for name in ("planes", "channels") for part in range(MAX_PARTS))


@dataclass(frozen=True)
class Instruction:
    """One instruction: opcode name, field values, and the queues it waits for and signals."""

    name: str
    fields: Mapping[str, int] = field(default_factory=dict)
    waits: frozenset[Queue] = frozenset()
    signals: frozenset[Queue] = frozenset()

    @property
    def queue(self) -> Queue:
        """The queue that executes it."""
        return FORMATS[self.name].queue

    def encode(self) -> bytes:
        """32 bytes; raises IsaError for a missing, unknown or out-of-range field."""
        layout = FORMATS[self.name]
        unknown = set(self.fields) - {name for name, _, _ in layout.fields}
        if unknown:
            raise IsaError(f"{self.name} has no field {', '.join(sorted(unknown))}.")
        word = layout.opcode | _mask(self.waits) << WAITS_AT | _mask(self.signals) << SIGNALS_AT
        at = FIELDS_AT
        for name, bits, signed in layout.fields:
            if name not in self.fields:
                raise IsaError(f"{self.name} lacks field {name}.")
            value = int(self.fields[name])
            low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
            if not low <= value <= high:
                raise IsaError(f"{self.name}.{name} = {value} is outside {low}..{high}.")
            word |= (value & (1 << bits) - 1) << at
            at += bits
        return word.to_bytes(INSTRUCTION_BYTES, "little")

    @classmethod
    def decode(cls, data: bytes) -> Instruction:
        """Inverse of `encode`; raises IsaError for an unknown opcode."""
        word = int.from_bytes(data, "little")
        name = NAMES.get(word & 0xFF)
        if name is None:
            raise IsaError(f"opcode {word & 0xFF} is unknown.")
        at, fields = FIELDS_AT, {}
        for item, bits, signed in FORMATS[name].fields:
            value = word >> at & (1 << bits) - 1
            if signed and value >> bits - 1:
                value -= 1 << bits
            fields[item] = value
            at += bits
        return cls(name, fields, _queues(word >> WAITS_AT), _queues(word >> SIGNALS_AT))

    def text(self) -> str:
        """Assembler notation: `MATMUL input=0 ... ; wait LOAD ; signal VECTOR`."""
        parts = [" ".join([self.name, *(f"{k}={v}" for k, v in self.fields.items())])]
        for word, queues in (("wait", self.waits), ("signal", self.signals)):
            if queues:
                parts.append(" ".join([word, *(q.name for q in sorted(queues))]))
        return " ; ".join(parts)


def _mask(queues: Iterable[Queue]) -> int:
    return sum(1 << q for q in queues)


def _queues(mask: int) -> frozenset[Queue]:
    return frozenset(q for q in Queue if mask >> q & 1)


def set_signal(code: bytearray, index: int, queue: Queue) -> None:
    """Let an assembled instruction signal a queue when it is done."""
    byte, bit = divmod(SIGNALS_AT + queue, 8)
    code[index * INSTRUCTION_BYTES + byte] |= 1 << bit


def field_column(code: np.ndarray, name: str, item: str) -> np.ndarray:
    """int64 (count,): field `item` of assembled instructions (count, 32) that all are `name`s."""
    fields = FORMATS[name].fields
    names = [other for other, _, _ in fields]
    if item not in names:
        raise IsaError(f"{name} has no field {item}.")
    index = names.index(item)
    at = FIELDS_AT + sum(bits for _, bits, _ in fields[:index])
    _, bits, signed = fields[index]
    first, shift = divmod(at, 8)
    last = -(-(at + bits) // 8)
    value = np.zeros(len(code), np.int64)
    for byte in range(first, last):
        value |= code[:, byte].astype(np.int64) << 8 * (byte - first)
    value = value >> shift & (1 << bits) - 1
    return np.where(value >> bits - 1 == 1, value - (1 << bits), value) if signed else value


def decode_all(code: np.ndarray) -> list[Instruction]:
    """Instructions of an assembled program, in order."""
    data = code.tobytes()
    if len(data) % INSTRUCTION_BYTES:
        raise IsaError(f"{len(data)} bytes are not whole instructions of {INSTRUCTION_BYTES}.")
    return [
        Instruction.decode(data[i : i + INSTRUCTION_BYTES])
        for i in range(0, len(data), INSTRUCTION_BYTES)
    ]


def disassemble(code: np.ndarray) -> list[str]:
    """Assembler text of each instruction."""
    return [i.text() for i in decode_all(code)]


def pack_descriptor(names: tuple[str, ...], values: Mapping[str, int]) -> np.ndarray:
    """int64 array in the order of `names`; absent values are 0, unknown names raise IsaError."""
    unknown = set(values) - set(names)
    if unknown:
        raise IsaError(f"descriptor has no field {', '.join(sorted(unknown))}.")
    return np.array([int(values.get(name, 0)) for name in names], np.int64)


def unpack_descriptor(names: tuple[str, ...], data: np.ndarray) -> dict[str, int]:
    """Inverse of `pack_descriptor`."""
    return {name: int(v) for name, v in zip(names, data, strict=True)}
