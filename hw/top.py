"""The accelerator: control, sequencer, counters and datapath behind AXI4 ports."""

from __future__ import annotations

from amaranth import Elaboratable, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw import axi
from signmask.hw.control import Control
from signmask.hw.counters import Counters
from signmask.hw.datapath import QUEUES, Datapath
from signmask.hw.fetch import bus_bytes
from signmask.hw.register_map import register_map
from signmask.hw.sequencer import Sequencer
from signmask.hw.spec.config import HardwareConfig

LITE_CHANNELS = {
    "aw": ("addr",), "w": ("data", "strb"), "b": ("resp",), "ar": ("addr",), "r": ("data", "resp"),
}  # fmt: skip
FROM_SLAVE = ("b", "r")


class Top(wiring.Component):
    """The whole accelerator.

    Ports, all with the standard AXI names: masters `instruction` and `load` (read), `store`
    (write), `near` (read and write, near_data_bytes wide), slave `control` (AXI4-Lite, registers of
    `hw/register_map.py`), and the level `interrupt`. Responses other than data are not looked at.
    Bit q of `trace_start` and `trace_done` follows the instructions of queue q, for observers.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.config = config
        self.datapath = Datapath(config)
        bits = register_map(config).address_bits
        widths = {"addr": bits, "data": 32, "strb": 4, "resp": 2}
        control: dict[str, wiring.Member] = {}
        for channel, members in LITE_CHANNELS.items():
            forward, backward = (Out, In) if channel in FROM_SLAVE else (In, Out)
            control |= {
                f"control_{channel}valid": forward(1),
                f"control_{channel}ready": backward(1),
            }
            control |= {f"control_{channel}{name}": forward(widths[name]) for name in members}
        super().__init__(
            axi.standard_read("instruction", bus_bytes(config))
            | axi.standard_read("load", config.axi_bytes)
            | axi.standard_write("store", config.axi_bytes)
            | axi.standard_read("near", config.near_data_bytes)
            | axi.standard_write("near", config.near_data_bytes)
            | control
            | {
                "interrupt": Out(1),
                "trace_start": Out(len(QUEUES)),
                "trace_done": Out(len(QUEUES)),
            }
        )

    @property
    def modules(self) -> dict[str, Elaboratable]:
        """Modules that are emitted once and instantiated by name."""
        return self.datapath.modules

    def elaborate(self, platform: object) -> Module:
        """The four parts, connected."""
        m = Module()
        m.submodules.control = control = Control(self.config)
        m.submodules.sequencer = sequencer = Sequencer(self.config)
        m.submodules.counters = counters = Counters(self.config)
        m.submodules.datapath = datapath = self.datapath
        self._control(m, control)
        axi.drive_read(m, self, "instruction", sequencer.memory)
        axi.drive_read(m, self, "load", datapath.load_axi)
        axi.drive_write(m, self, "store", datapath.store_axi)
        axi.drive_read(m, self, "near", datapath.near_read)
        axi.drive_write(m, self, "near", datapath.near_write)
        for index, name in enumerate(QUEUES):
            port = getattr(sequencer, name)
            wiring.connect(m, port.instruction, getattr(datapath, name))
            m.d.comb += [
                port.done.eq(getattr(datapath, f"{name}_done")),
                self.trace_start[index].eq(port.instruction.valid & port.instruction.ready),
                self.trace_done[index].eq(port.done),
            ]
        m.d.comb += [
            datapath.now.eq(control.now),
            datapath.last.eq(control.last),
            datapath.after_dense.eq(control.after_dense),
            sequencer.start.eq(control.start),
            sequencer.program.eq(control.program),
            sequencer.count.eq(control.count),
            control.running.eq(sequencer.running),
            control.finished.eq(sequencer.finished),
            control.illegal.eq(sequencer.illegal),
            control.cycles.eq(sequencer.cycles),
            counters.clear.eq(control.start),
            counters.count.eq(control.count),
            counters.occupied.eq(sequencer.occupied),
        ]
        wiring.connect(m, control.counters, counters.readout)
        for event, source in (
            (counters.load_moved, datapath.load_moved),
            (counters.store_moved, datapath.store_moved),
            (counters.engine_moved, datapath.near_moved),
            (counters.deltas, datapath.deltas),
            (counters.segment_changes, datapath.segment_changes),
            (counters.vector_saturated, datapath.sfu_saturated),
            (counters.engine_saturated, datapath.near_saturated),
        ):
            wiring.connect(m, source, event)
        return m

    def _control(self, m: Module, control: Control) -> None:
        m.d.comb += self.interrupt.eq(control.interrupt)
        for name, members in LITE_CHANNELS.items():
            channel = getattr(control.axi, name)
            for member in ("valid", "ready", *members):
                inner, outer = getattr(channel, member), getattr(self, f"control_{name}{member}")
                to_inner = (name in FROM_SLAVE) == (member == "ready")
                m.d.comb += inner.eq(outer) if to_inner else outer.eq(inner)
