"""Special function unit: the vector queue, one instruction at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from amaranth import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.instruction import InstructionStream, opcode
from signmask.hw.sfu.constants import Constants
from signmask.hw.sfu.copy import Copy
from signmask.hw.sfu.encode_mask import EncodeMask
from signmask.hw.sfu.encode_raw import EncodeRaw
from signmask.hw.sfu.encode_source import EncodeSource
from signmask.hw.sfu.multiply import Multiply
from signmask.hw.sfu.normalise_tokens import NormaliseTokens
from signmask.hw.sfu.operation import EVENTS, Operation, vector_ports
from signmask.hw.sfu.requantise import Requantise
from signmask.hw.sfu.softmax import NormaliseRows, Softmax
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import FORMATS

Kind = Callable[[HardwareConfig], Operation]


class Sfu(wiring.Component):
    """Hands an instruction to the unit of its opcode and its scratchpad ports to that unit.

    `instruction` and `done` as everywhere; ports `vector_ports` and events `EVENTS` of
    `hw/sfu/operation.py`. Units use them between the cycle after the start and the done cycle;
    what they drive outside of that is ignored. `kinds` are the units that it has, for studies and
    tests of some of them; another one's instruction is never done.
    """

    KINDS = (
        Requantise, Copy, EncodeRaw, EncodeMask, EncodeSource, Softmax, NormaliseRows, Constants,
        NormaliseTokens, Multiply,
    )  # fmt: skip

    def __init__(self, config: HardwareConfig, kinds: Sequence[Kind] = KINDS) -> None:
        self.units = tuple(kind(config) for kind in kinds)
        self.shared = {**vector_ports(config), **EVENTS}
        super().__init__(
            {"instruction": In(InstructionStream), "done": Out(1)}
            | {name: Out(signature) for name, signature in self.shared.items()}
        )

    def elaborate(self, platform: object) -> Module:
        """Units, their selection, and the gates in front of the ports."""
        m = Module()
        busy = Signal()
        start = self.instruction.valid & ~busy
        m.d.comb += self.instruction.ready.eq(~busy)
        with m.If(self.done):
            m.d.sync += busy.eq(0)
        with m.If(start):
            m.d.sync += busy.eq(1)
        chosen: dict[Any, Value] = {}
        for unit in self.units:
            name = unit.name.lower()
            m.submodules[name] = unit
            code = opcode(self.instruction.payload)
            fits, selected = Signal(), Signal(name=f"{name}_selected")
            m.d.comb += [
                fits.eq(start & code.matches(*(FORMATS[name].opcode for name in unit.executes))),
                unit.instruction.valid.eq(fits),
                unit.instruction.payload.eq(self.instruction.payload),
            ]
            with m.If(start):
                m.d.sync += selected.eq(fits)
            with m.Elif(self.done):
                m.d.sync += selected.eq(0)
            chosen[unit] = selected
        m.d.comb += self.done.eq(_any(selected & unit.done for unit, selected in chosen.items()))
        for name, signature in self.shared.items():
            self._share(m, name, signature, chosen)
        return m

    def _share(self, m: Module, name: str, signature: Any, chosen: Mapping[Any, Value]) -> None:
        """One port for all units that have it."""
        outer = getattr(self, name)
        users = {unit: gate for unit, gate in chosen.items() if hasattr(unit, name)}
        for member, flow in signature.members.items():
            if flow.flow == In:
                m.d.comb += [
                    getattr(getattr(unit, name), member).eq(getattr(outer, member))
                    for unit in users
                ]
                continue
            for unit, gate in users.items():
                with m.If(gate):
                    m.d.comb += getattr(outer, member).eq(getattr(getattr(unit, name), member))


def _any(bits: Any) -> Value:
    """OR of bits."""
    result, *rest = bits
    for bit in rest:
        result = result | bit
    return result
