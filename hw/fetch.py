"""Instruction fetch: bursts over the instruction port, cut into instructions."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.axi import ADDRESS_BITS, BOUNDARY_BYTES, MAX_BEATS, AxiRead
from signmask.hw.instruction import INSTRUCTION_BITS, InstructionStream
from signmask.hw.register_map import COUNT_BITS
from signmask.hw.spec.config import ConfigError, HardwareConfig
from signmask.hw.spec.isa import INSTRUCTION_BYTES


def bus_bytes(config: HardwareConfig) -> int:
    """The bytes of a beat; raises ConfigError for a width that is no power of two."""
    if config.axi_bytes & (config.axi_bytes - 1):
        raise ConfigError(
            f"config '{config.name}': axi_bytes {config.axi_bytes} is no power of two, which AXI "
            "needs; choose one to build the hardware."
        )
    return config.axi_bytes


class Fetch(wiring.Component):
    """Reads `count` instructions from `address` when `start` is high, and streams them in order.

    All requests leave at once, one per cycle; beats that find no place wait on the bus, so the port
    must not share a read channel with another one. `idle`: every instruction has left. `address` is
    a multiple of 64 and of axi_bytes; `address` and `count` are read in the cycle of `start`, which
    comes only while idle. Raises ConfigError for a bus width that is no power of two.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.data_bytes = bus_bytes(config)
        super().__init__(
            {
                "memory": Out(AxiRead(self.data_bytes)),
                "start": In(1),
                "address": In(ADDRESS_BITS),
                "count": In(COUNT_BITS),
                "instructions": Out(InstructionStream),
                "idle": Out(1),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Requests, the register of beats, and the count of instructions to come."""
        m = Module()
        self._request(m)
        left = Signal(COUNT_BITS)  # instructions that have not left
        m.d.comb += self.idle.eq(left == 0)
        with m.If(self.start):
            m.d.sync += left.eq(self.count)
        with m.Elif(self.instructions.valid & self.instructions.ready):
            m.d.sync += left.eq(left - 1)
        if self.data_bytes < INSTRUCTION_BYTES:
            self._gather(m)
        else:
            self._scatter(m, left)
        return m

    def _request(self, m: Module) -> None:
        ar = self.memory.ar
        step = self.data_bytes.bit_length() - 1
        # The beats of the largest burst within its boundary.
        window = min(BOUNDARY_BYTES // self.data_bytes, MAX_BEATS)
        low = window.bit_length() - 1
        beat = Signal(ADDRESS_BITS - step)  # next beat of memory to ask for
        beats = Signal(COUNT_BITS + 2)  # not asked for
        room, burst = Signal(range(window + 1)), Signal(range(window + 1))
        m.d.comb += [
            room.eq(window - beat[:low]),
            burst.eq(Mux(beats < room, beats, room)),
            ar.valid.eq(beats != 0),
            ar.addr.eq(beat << step),
            ar.len.eq(burst - 1),
        ]
        with m.If(self.start):
            per_beat = self.data_bytes // INSTRUCTION_BYTES
            if per_beat:
                needed = (self.count + (per_beat - 1)) >> (per_beat.bit_length() - 1)
            else:
                needed = self.count * (INSTRUCTION_BYTES // self.data_bytes)
            m.d.sync += [beat.eq(self.address >> step), beats.eq(needed)]
        with m.Elif(ar.valid & ar.ready):
            m.d.sync += [beat.eq(beat + burst), beats.eq(beats - burst)]

    def _gather(self, m: Module) -> None:
        """Several beats make an instruction: the last one joins the others in `word`, whose
        instruction may leave in that very cycle."""
        r, out = self.memory.r, self.instructions
        parts = INSTRUCTION_BYTES // self.data_bytes
        early = [Signal(8 * self.data_bytes, name=f"early_{i}") for i in range(parts - 1)]
        word, full, part = Signal(INSTRUCTION_BITS), Signal(), Signal(range(parts))
        last = part == parts - 1
        m.d.comb += [
            out.payload.eq(word),
            out.valid.eq(full),
            r.ready.eq(~last | ~full | out.ready),
        ]
        with m.If(out.ready):
            m.d.sync += full.eq(0)
        with m.If(r.valid & r.ready):
            with m.If(last):
                m.d.sync += [word.eq(Cat(*early, r.data)), full.eq(1), part.eq(0)]
            with m.Else():
                m.d.sync += part.eq(part + 1)
                with m.Switch(part):
                    for i, held in enumerate(early):
                        with m.Case(i):
                            m.d.sync += held.eq(r.data)

    def _scatter(self, m: Module, left: Signal) -> None:
        """A beat holds one instruction or several: they leave from the low end of `beat`."""
        r, out = self.memory.r, self.instructions
        held = self.data_bytes // INSTRUCTION_BYTES
        beat, filled = Signal(8 * self.data_bytes), Signal(range(held + 1))
        leaves = out.valid & out.ready
        m.d.comb += [
            out.payload.eq(beat),
            # What follows the last instruction in its beat is none.
            out.valid.eq((filled != 0) & (left != 0)),
            r.ready.eq((filled == 0) | ((filled == 1) & out.ready)),
        ]
        with m.If(self.start):
            m.d.sync += filled.eq(0)
        with m.Elif(r.valid & r.ready):
            m.d.sync += [beat.eq(r.data), filled.eq(held)]
        with m.Elif(leaves):
            m.d.sync += [filled.eq(filled - 1), beat.eq(beat >> INSTRUCTION_BITS)]
