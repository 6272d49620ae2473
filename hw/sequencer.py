"""Sequencer: five in-order queues, tokens, and the cycles of a program."""

from __future__ import annotations

from amaranth import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.axi import ADDRESS_BITS, AxiRead
from signmask.hw.fetch import Fetch, bus_bytes
from signmask.hw.instruction import (
    INSTRUCTION_BITS,
    TOKEN_BITS,
    InstructionStream,
    opcode,
    signals,
    waits,
)
from signmask.hw.register_map import COUNT_BITS, COUNTER_BITS
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import FORMATS, Queue
from signmask.hw.spec.timing import IN_FLIGHT
from signmask.hw.word_queue import WordQueue

TOKEN_COUNT_BITS = 12
# Units that take instructions before the previous one is done.
PIPELINED = (Queue.LOAD, Queue.STORE)


class UnitPort(wiring.Signature):
    """What joins the sequencer and a unit, as the sequencer sees it. A unit is done at least one
    cycle after it took the instruction."""

    def __init__(self) -> None:
        super().__init__({"instruction": Out(InstructionStream), "done": In(1)})


class Sequencer(wiring.Component):
    """Fetches a program and runs it on the five units.

    `start` (one cycle, while not `running`) is cycle 0; `program` and `count` are read in it.
    `finished` is high in the cycle after the last instruction is done; `cycles` is then, and until
    the next start, the number of cycles of the run. Bit q of `occupied`: the unit of queue q has
    an instruction that keeps it from taking the next one. `illegal`: an instruction of the program
    had an unknown opcode and was left out. Raises ConfigError as Fetch does.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.config = config
        super().__init__(
            {
                "memory": Out(AxiRead(bus_bytes(config))),
                "start": In(1),
                "program": In(ADDRESS_BITS),
                "count": In(COUNT_BITS),
                "running": Out(1),
                "finished": Out(1),
                "illegal": Out(1),
                "cycles": Out(COUNTER_BITS),
                "occupied": Out(len(Queue)),
                **{queue.name.lower(): Out(UnitPort()) for queue in Queue},
            }
        )

    def elaborate(self, platform: object) -> Module:
        """Fetch, one queue per unit, the tokens, and the end of the run."""
        m = Module()
        m.submodules.fetch = fetch = Fetch(self.config)
        wiring.connect(m, wiring.flipped(self.memory), fetch.memory)
        m.d.comb += [
            fetch.start.eq(self.start),
            fetch.address.eq(self.program),
            fetch.count.eq(self.count),
        ]
        waiting, flying = [], []
        for queue in Queue:
            name = queue.name.lower()
            m.submodules[f"{name}_queue"] = held = WordQueue(
                INSTRUCTION_BITS, self.config.queue_depth
            )
            m.submodules[f"{name}_in_flight"] = flight = WordQueue(
                TOKEN_BITS, IN_FLIGHT if queue in PIPELINED else 1
            )
            waiting.append(held)
            flying.append(flight)
            m.d.comb += [held.clear.eq(self.start), flight.clear.eq(self.start)]
        self._hand_out(m, fetch, waiting)
        self._start(m, waiting, flying)
        busy = Cat(*(q.head.valid for q in waiting), *(q.head.valid for q in flying))
        m.d.comb += self.finished.eq(self.running & fetch.idle & ~busy.any())
        with m.If(self.start):
            # `cycles` is the number of the cycle, from the one after the start pulse on.
            m.d.sync += [self.running.eq(1), self.cycles.eq(self.count != 0)]
        with m.Elif(self.finished):
            m.d.sync += self.running.eq(0)
        with m.Elif(self.running):
            m.d.sync += self.cycles.eq(self.cycles + 1)
        return m

    def _hand_out(self, m: Module, fetch: Fetch, waiting: list[WordQueue]) -> None:
        """The instruction fetched goes to the queue of its opcode when there is room."""
        offered = fetch.instructions
        known = Signal()
        m.d.comb += known.eq(0)
        for queue, held in zip(Queue, waiting, strict=True):
            codes = [f.opcode for f in FORMATS.values() if f.queue == queue]
            mine = Signal(name=f"for_{queue.name.lower()}")
            m.d.comb += [
                mine.eq(opcode(offered.payload).matches(*codes)),
                held.enter.payload.eq(offered.payload),
                held.enter.valid.eq(offered.valid & mine),
            ]
            with m.If(mine):
                m.d.comb += [known.eq(1), offered.ready.eq(held.enter.ready)]
        with m.If(~known):
            m.d.comb += offered.ready.eq(1)
        with m.If(self.start):
            m.d.sync += self.illegal.eq(0)
        with m.Elif(offered.valid & ~known):
            m.d.sync += self.illegal.eq(1)

    def _start(self, m: Module, waiting: list[WordQueue], flying: list[WordQueue]) -> None:
        """Heads start when their unit is ready and their tokens are there; units that are done
        leave tokens."""
        taken: list[Value] = []  # per queue, a bit per queue whose token it consumes
        left: list[Value] = []  # per queue, a bit per queue that gets a token
        tokens = [
            [Signal(TOKEN_COUNT_BITS, name=f"tokens_{s.name}_{t.name}".lower()) for t in Queue]
            for s in Queue
        ]
        for queue, held, flight in zip(Queue, waiting, flying, strict=True):
            name = queue.name.lower()
            port = getattr(self, name)
            word = held.head.payload
            there = Cat(tokens[source][queue] != 0 for source in Queue)
            started, active = Signal(name=f"{name}_starts"), Signal(name=f"{name}_active")
            m.d.comb += [
                port.instruction.payload.eq(word),
                port.instruction.valid.eq(
                    held.head.valid & flight.enter.ready & ~(waits(word) & ~there).any()
                ),
                started.eq(port.instruction.valid & port.instruction.ready),
                held.head.ready.eq(started),
                flight.enter.valid.eq(started),
                flight.enter.payload.eq(signals(word)),
                flight.head.ready.eq(port.done),
                self.occupied[queue].eq(started | (active & ~port.instruction.ready)),
            ]
            with m.If(started):
                m.d.sync += active.eq(1)
            with m.Elif(port.instruction.ready):
                m.d.sync += active.eq(0)
            taken.append(waits(word) & started.replicate(TOKEN_BITS))
            left.append(flight.head.payload & port.done.replicate(TOKEN_BITS))
        for source in Queue:
            for target in Queue:
                count = tokens[source][target]
                with m.If(self.start):
                    m.d.sync += count.eq(0)
                with m.Else():
                    m.d.sync += count.eq(count + left[source][target] - taken[target][source])
