"""Instructions from assembler text, and to machine code."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from signmask.hw.spec.isa import FORMATS, INSTRUCTION_BYTES, Instruction, IsaError, Queue


def parse(line: str) -> Instruction:
    """Inverse of `Instruction.text`; raises IsaError naming the part that is not understood."""
    head, *tails = (part.split() for part in line.split(";"))
    if not head or head[0] not in FORMATS:
        raise IsaError(f"no such instruction: {line.strip()!r}.")
    sets: dict[str, frozenset[Queue]] = {"wait": frozenset(), "signal": frozenset()}
    try:
        fields = {k: int(v) for k, v in (item.split("=") for item in head[1:])}
        for tail in tails:
            if tail[0] not in sets:
                raise KeyError(tail[0])
            sets[tail[0]] = frozenset(Queue[name] for name in tail[1:])
    except (ValueError, KeyError, IndexError):
        raise IsaError(f"not understood: {line.strip()!r}.") from None
    return Instruction(head[0], fields, sets["wait"], sets["signal"])


def assemble(instructions: Iterable[Instruction]) -> np.ndarray:
    """uint8 (count, 32)."""
    data = b"".join(i.encode() for i in instructions)
    return np.frombuffer(data, np.uint8).reshape(-1, INSTRUCTION_BYTES)
