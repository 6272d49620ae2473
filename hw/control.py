"""The control port: an AXI4-Lite slave with the registers of `hw/register_map.py`."""

from __future__ import annotations

from amaranth import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.counters import Readout
from signmask.hw.register_map import (
    ADDRESS_BITS,
    COUNT_BITS,
    COUNTER_BITS,
    IDENTITY,
    STEP_BITS,
    WORD_BYTES,
    Register,
    register_map,
    traffic_names,
)
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import Queue

WORD_BITS = 8 * WORD_BYTES
OKAY, SLAVE_ERROR = 0, 2


class AxiLite(wiring.Signature):
    """AXI4-Lite with 32-bit data, as the master sees it; its prot signals have no effect."""

    def __init__(self, address_bits: int) -> None:
        self.address_bits = address_bits

        def channel(**members: int) -> Out:
            out = {name: Out(bits) for name, bits in members.items()}
            return Out(wiring.Signature({"valid": Out(1), "ready": In(1), **out}))

        super().__init__(
            {
                "aw": channel(addr=address_bits),
                "w": channel(data=WORD_BITS, strb=WORD_BYTES),
                "b": In(wiring.Signature({"valid": Out(1), "ready": In(1), "resp": Out(2)})),
                "ar": channel(addr=address_bits),
                "r": In(
                    wiring.Signature(
                        {"valid": Out(1), "ready": In(1), "resp": Out(2), "data": Out(WORD_BITS)}
                    )
                ),
            }
        )


class Control(wiring.Component):
    """Registers and counters on AXI4-Lite, one transfer of each direction at a time.

    `start` is one cycle; the program, count and step registers do not change while `running`.
    `interrupt` is a level. Writes that have no effect (a register that is read only or kept while
    a program runs, an address without a register) and reads of such an address answer with an
    error.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.map = register_map(config)
        super().__init__(
            {
                "axi": In(AxiLite(self.map.address_bits)),
                "interrupt": Out(1),
                "start": Out(1),
                "program": Out(ADDRESS_BITS),
                "count": Out(COUNT_BITS),
                "now": Out(STEP_BITS),
                "last": Out(STEP_BITS),
                "after_dense": Out(1),
                "running": In(1),
                "finished": In(1),
                "illegal": In(1),
                "cycles": In(COUNTER_BITS),
                "counters": Out(Readout(self.map.sources.entries)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Writes, reads, and the end of a program."""
        m = Module()
        done, pending, enabled = Signal(), Signal(), Signal()
        self._write(m, done, pending, enabled)
        self._read(m, self._values(done, pending, enabled))
        m.d.comb += self.interrupt.eq(pending & enabled)
        with m.If(self.finished):
            m.d.sync += [done.eq(1), pending.eq(1)]
        return m

    def _write(self, m: Module, done: Signal, pending: Signal, enabled: Signal) -> None:
        """Address and data may come in either order; the write happens when both are there."""
        aw, w, b = self.axi.aw, self.axi.w, self.axi.b
        addressed, given = Signal(), Signal()
        word, data, strobe = (
            Signal(self.map.address_bits - 2),
            Signal(WORD_BITS),
            Signal(WORD_BYTES),
        )
        write, hit = Signal(), Signal()
        m.d.comb += [
            aw.ready.eq(~addressed),
            w.ready.eq(~given),
            write.eq(addressed & given & ~b.valid),
        ]
        with m.If(aw.valid & aw.ready):
            m.d.sync += [addressed.eq(1), word.eq(aw.addr >> 2)]
        with m.If(w.valid & w.ready):
            m.d.sync += [given.eq(1), data.eq(w.data), strobe.eq(w.strb)]
        with m.If(b.valid & b.ready):
            m.d.sync += b.valid.eq(0)
        kept = {
            "NOW": self.now, "LAST": self.last, "AFTER_DENSE": self.after_dense,
            "PROGRAM": self.program, "COUNT": self.count,
        }  # fmt: skip
        with m.If(write):
            m.d.sync += [
                addressed.eq(0), given.eq(0), b.valid.eq(1),
                b.resp.eq(Mux(hit, OKAY, SLAVE_ERROR)),
            ]  # fmt: skip
            with m.Switch(word):
                with m.Case(self._word("START")):
                    m.d.comb += [
                        hit.eq(~self.running),
                        self.start.eq(self._one(data, strobe) & hit),
                    ]
                with m.Case(self._word("INTERRUPT_ENABLE")):
                    m.d.comb += hit.eq(1)
                    self._merge(m, enabled, data, strobe)
                with m.Case(self._word("INTERRUPT")):
                    m.d.comb += hit.eq(1)
                    with m.If(self._one(data, strobe)):
                        m.d.sync += pending.eq(0)
                for name, signal in kept.items():
                    for half in range(self.map[name].words):
                        with m.Case(self._word(name) + half):
                            m.d.comb += hit.eq(~self.running)
                            with m.If(~self.running):
                                part = signal[half * WORD_BITS :][:WORD_BITS]
                                self._merge(m, part, data, strobe)
        with m.If(self.start):
            m.d.sync += done.eq(0)

    def _word(self, name: str) -> int:
        return self.map[name].offset // WORD_BYTES

    @staticmethod
    def _one(data: Signal, strobe: Signal) -> Value:
        return data[0] & strobe[0]

    @staticmethod
    def _merge(m: Module, part: Value, data: Signal, strobe: Signal) -> None:
        """Write the bytes whose strobe is set."""
        for i in range(0, len(part), 8):
            with m.If(strobe[i // 8]):
                m.d.sync += part[i : i + 8].eq(data[i : i + 8])

    def _values(self, done: Signal, pending: Signal, enabled: Signal) -> dict[str, Value | int]:
        """What each register that can be read holds."""
        values: dict[str, Value | int] = {
            "IDENTITY": IDENTITY,
            "STATUS": Cat(self.running, done, self.illegal),
            "INTERRUPT_ENABLE": enabled,
            "INTERRUPT": pending,
            "NOW": self.now,
            "LAST": self.last,
            "AFTER_DENSE": self.after_dense,
            "PROGRAM": self.program,
            "COUNT": self.count,
            "CYCLES": self.cycles,
        }
        for queue in Queue:
            values[f"BUSY_{queue.name}"] = self.counters.busy[queue]
        for i, name in enumerate(traffic_names()):
            values[f"TRAFFIC_{name}"] = self.counters.traffic[i]
        return values

    def _read(self, m: Module, values: dict[str, Value | int]) -> None:
        """An address, the memories' answer to it, and the word."""
        ar, r, view = self.axi.ar, self.axi.r, self.counters
        streams, sources = self.map.streams, self.map.sources
        word, looked, answers = Signal(self.map.address_bits - 2), Signal(), Signal()
        entry_bits = len(view.source)
        column_bits = (sources.stride // WORD_BYTES - 1).bit_length()
        found, hit = Signal(WORD_BITS), Signal()
        m.d.comb += [
            ar.ready.eq(~looked & ~answers & ~r.valid),
            view.en.eq(looked),
            view.stream.eq(word),
            view.source.eq(word >> column_bits),
        ]
        m.d.sync += [looked.eq(ar.valid & ar.ready), answers.eq(looked)]
        with m.If(ar.valid & ar.ready):
            m.d.sync += word.eq(ar.addr >> 2)
        with m.If(
            word >> (entry_bits + column_bits) == sources.offset // sources.stride >> entry_bits
        ):
            columns = [*view.values, view.counted]
            with m.Switch(word[:column_bits]):
                for i, value in enumerate(columns):
                    with m.Case(i):
                        m.d.comb += [found.eq(value), hit.eq(1)]
        with m.Elif(word >> entry_bits == streams.offset // WORD_BYTES >> entry_bits):
            m.d.comb += [found.eq(view.saturated), hit.eq(1)]
        with m.Else(), m.Switch(word):
            for name, value in values.items():
                for half in range(self.map[name].words):
                    with m.Case(self._word(name) + half):
                        m.d.comb += [found.eq(self._half(self.map[name], value, half)), hit.eq(1)]
        with m.If(answers):
            m.d.sync += [
                r.valid.eq(1), r.data.eq(found), r.resp.eq(Mux(hit, OKAY, SLAVE_ERROR)),
            ]  # fmt: skip
        with m.Elif(r.ready):
            m.d.sync += r.valid.eq(0)

    @staticmethod
    def _half(register: Register, value: Value | int, half: int) -> Value | int:
        if isinstance(value, int):
            return value >> (half * WORD_BITS)
        return value[half * WORD_BITS : min((half + 1) * WORD_BITS, register.width)]
