"""What the vector instructions share: scratchpad ports, the instruction latch, delays."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.instruction import InstructionStream, fields
from signmask.hw.ports import CountEvent, DeltaEvent, ReadPort, WritePort
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.numerics import DELTA_BITS

RAW_BITS = 32
SEGMENT_BITS = 3
CORRECTION_BITS = 16
ENTRY_BITS = 48
ROW_BITS = 32
SATURATION_BITS = 8  # counts saturated lanes of a word


def vector_ports(config: HardwareConfig) -> dict[str, ReadPort | WritePort]:
    """Scratchpad ports of the vector queue by name; a unit has those that it uses."""
    n = config.group
    parameter = ReadPort(config.parameter_words, n * ENTRY_BITS)
    return {
        "accumulator": ReadPort(config.accumulator_words, n * RAW_BITS),
        "addend": ReadPort(config.accumulator_words, n * RAW_BITS),
        "result": WritePort(config.accumulator_words, n * RAW_BITS, n),
        "operand": WritePort(config.input_words, n * DELTA_BITS, n),
        "segments": ReadPort(config.mask_words, n * SEGMENT_BITS),
        "corrections": ReadPort(config.mask_words, n * CORRECTION_BITS),
        "parameter_0": parameter,
        "parameter_1": parameter,
        "parameter_2": parameter,
        "parameter_write_0": WritePort(config.parameter_words, n * ENTRY_BITS, n),
        "parameter_write_1": WritePort(config.parameter_words, n * ENTRY_BITS, n),
        "row": ReadPort(config.row_words, ROW_BITS),
        "row_write": WritePort(config.row_words, ROW_BITS, 1),
    }


EVENTS = {"deltas": DeltaEvent(), "saturated": CountEvent(SATURATION_BITS)}


class Operation(wiring.Component):
    """One vector instruction: `instruction` starts it, `done` pulses with its last write.

    `name` is its opcode, `executes` all of them, `ports` are names of `vector_ports` and of
    `EVENTS`. Ports and events are quiet, all zero, before the cycle after the start and after the
    done cycle.
    """

    def __init__(self, config: HardwareConfig, name: str, ports: tuple[str, ...]) -> None:
        self.config, self.name = config, name
        self.executes: tuple[str, ...] = (name,)
        known = {**vector_ports(config), **EVENTS}
        super().__init__(
            {"instruction": In(InstructionStream), "done": Out(1)}
            | {port: Out(known[port]) for port in ports}
        )

    def latch(self, m: Module) -> tuple[Signal, Signal, dict[str, Signal]]:
        """(start, busy, fields): start in the cycle of the handshake, from the next one on busy
        until done, and the fields of the instruction."""
        start, busy = Signal(), Signal()
        m.d.comb += [self.instruction.ready.eq(~busy), start.eq(self.instruction.valid & ~busy)]
        latched = {}
        with m.If(self.done):
            m.d.sync += busy.eq(0)
        with m.If(start):
            m.d.sync += busy.eq(1)
            for name, value in fields(self.name, self.instruction.payload).items():
                latched[name] = Signal(value.shape(), name=f"field_{name}")
                m.d.sync += latched[name].eq(value)
        return start, busy, latched

    def walk(
        self, m: Module, start: Value, field: str, advance: Value, step: Value | int = 1,
        name: str = "",
    ) -> Signal:  # fmt: skip
        """An address that starts at an instruction's field and moves on by `step` on `advance`;
        `name` tells apart two that start at the same field."""
        base = fields(self.name, self.instruction.payload)[field]
        address = Signal(len(base), name=f"{name or field}_address")
        with m.If(start):
            m.d.sync += address.eq(base)
        with m.Elif(advance):
            m.d.sync += address.eq(address + step)
        return address


def connect_event(m: Module, inner: Any, outer: Any) -> None:
    """`outer` shows `inner`, and zero while that is not valid."""
    with m.If(inner.valid):
        m.d.comb += [
            getattr(outer, name).eq(getattr(inner, name)) for name in outer.signature.members
        ]
