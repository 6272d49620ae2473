"""Slices of an instruction word, from the one table of formats in `hw/spec/isa.py`."""

from __future__ import annotations

from amaranth import Value
from amaranth.lib import stream

from signmask.hw.spec.isa import FORMATS, INSTRUCTION_BYTES

INSTRUCTION_BITS = 8 * INSTRUCTION_BYTES
OPCODE_BITS = 8
TOKEN_BITS = 5
FIELDS_AT = OPCODE_BITS + 2 * TOKEN_BITS

InstructionStream = stream.Signature(INSTRUCTION_BITS)


def opcode(word: Value) -> Value:
    """Opcode of an instruction word."""
    return word[:OPCODE_BITS]


def waits(word: Value) -> Value:
    """One bit per queue whose token the instruction waits for."""
    return word[OPCODE_BITS : OPCODE_BITS + TOKEN_BITS]


def signals(word: Value) -> Value:
    """One bit per queue that gets a token when the instruction is done."""
    return word[OPCODE_BITS + TOKEN_BITS : FIELDS_AT]


def fields(name: str, word: Value) -> dict[str, Value]:
    """Fields of the instruction `name` in `word`, signed where the format says so."""
    at, found = FIELDS_AT, {}
    for field, bits, signed in FORMATS[name].fields:
        value: Value = word[at : at + bits]
        found[field] = value.as_signed() if signed else value
        at += bits
    return found
