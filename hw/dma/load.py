"""Load unit: memory to scratchpads over one AXI read port."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from signmask.hw.axi import AxiRead
from signmask.hw.dma.bursts import SIZE_BITS
from signmask.hw.dma.lander import Lander
from signmask.hw.dma.requester import STEP_BITS, Requester
from signmask.hw.gearbox import ByteQueue
from signmask.hw.instruction import InstructionStream
from signmask.hw.ports import MovedEvent
from signmask.hw.spec.config import HardwareConfig

WRITES = ("input", "weight", "accumulator", "segments", "corrections", "parameter")


class LoadUnit(wiring.Component):
    """Instructions of the load queue (`docs/isa.md`), pipelined: requests of the next instructions
    leave while data of the earlier ones are on their way.

    `now` and `last` are the step registers, `moved` counts an instruction's bytes once. The cycles
    are those of `timing` (landing, load_occupied, load_done, list_landing). An instruction without
    words is not allowed. Raises ConfigError for a bus width that is no power of two.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.config = config
        self.requester, self.lander = Requester(config), Lander(config)
        self.shape = self.requester.shape
        super().__init__(
            {
                "instruction": In(InstructionStream), "done": Out(1),
                "now": In(STEP_BITS), "last": In(STEP_BITS),
                "axi": Out(AxiRead(config.axi_bytes)), "moved": Out(MovedEvent()),
            }
            | {name: self.lander.signature.members[name] for name in WRITES}
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """Requester, queues of areas in flight, byte queue, lander."""
        m = Module()
        m.submodules.requester = requester = self.requester
        m.submodules.lander = lander = self.lander
        wiring.connect(m, wiring.flipped(self.instruction), requester.instruction)
        wiring.connect(m, requester.ar, wiring.flipped(self.axi.ar))
        wiring.connect(m, requester.moved, wiring.flipped(self.moved))
        wiring.connect(m, lander.counted, requester.counted)
        for name in WRITES:
            wiring.connect(m, getattr(lander, name), wiring.flipped(getattr(self, name)))
        m.d.comb += [
            requester.now.eq(self.now), requester.last.eq(self.last), self.done.eq(lander.done)
        ]  # fmt: skip
        for name in ("areas", "landings"):
            source = getattr(requester, name)
            queue = SyncFIFOBuffered(width=len(source.payload.as_value()), depth=self.shape.depth)
            m.submodules[name] = queue
            m.d.comb += [
                queue.w_data.eq(source.payload), queue.w_en.eq(source.valid),
                source.ready.eq(queue.w_rdy),
            ]  # fmt: skip
        landings = m.submodules.landings
        m.d.comb += [
            lander.landings.payload.eq(landings.r_data), lander.landings.valid.eq(landings.r_rdy),
            landings.r_en.eq(lander.landings.ready),
        ]  # fmt: skip
        self._intake(m, m.submodules.areas)
        return m

    def _intake(self, m: Module, areas: SyncFIFOBuffered) -> None:
        """Beats to the byte queue, less the bytes around their area."""
        beat = self.shape.beat
        m.submodules.bytes = queue = ByteQueue(beat, self.shape.chunk)
        area = type(self.requester.areas.payload)(
            self.requester.areas.payload.shape(), areas.r_data
        )
        begun, rest = Signal(), Signal(SIZE_BITS)
        left, room = Signal(SIZE_BITS), Signal(range(beat + 1))
        r = self.axi.r
        m.d.comb += [
            left.eq(Mux(begun, rest, area.size)),
            queue.skip.eq(Mux(begun, 0, area.skip)),
            room.eq(beat - queue.skip),
            queue.count.eq(Mux(left < room, left, room)),
            queue.valid.eq(r.valid & areas.r_rdy), r.ready.eq(queue.ready & areas.r_rdy),
            queue.data.eq(r.data),
            queue.size.eq(self.lander.size), self.lander.available.eq(queue.available),
            self.lander.chunk.eq(queue.chunk), queue.take.eq(self.lander.take),
        ]  # fmt: skip
        with m.If(queue.valid & queue.ready):
            m.d.sync += [rest.eq(left - queue.count), begun.eq(1)]
            with m.If(left <= room):
                m.d.sync += begun.eq(0)
                m.d.comb += areas.r_en.eq(1)
