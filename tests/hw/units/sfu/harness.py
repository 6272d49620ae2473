"""The vector unit with its scratchpads, ports to fill and read them, and counts of its events."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.instruction import InstructionStream
from signmask.hw.ports import ReadPort, WritePort
from signmask.hw.scratchpad import Scratchpad
from signmask.hw.sfu.operation import vector_ports
from signmask.hw.sfu.sfu import Sfu
from tests.hw.units.cycle_count import count_cycles

PORTS = {
    "accumulator": ("accumulator", "addend", "result"),
    "input": ("operand",),
    "segments": ("segments",),
    "corrections": ("corrections",),
    "parameter": (
        "parameter_0", "parameter_1", "parameter_2", "parameter_write_0", "parameter_write_1",
    ),
    "row": ("row", "row_write"),
}  # fmt: skip
CLASSES = ("zero", "inlier", "outlier", "clipped", "elements")


class SfuHarness(wiring.Component):
    """`cycles` counts from the start of an instruction to its done, both included; the event counts
    are those since the start."""

    def __init__(self, config, kinds=Sfu.KINDS):
        self.sfu = Sfu(config, kinds)
        known, n = vector_ports(config), config.group
        self.pads = {}
        for name, ports in PORTS.items():
            port = known[ports[0]]
            self.pads[name] = Scratchpad(name, port.depth, port.width, 1 if name == "row" else n)
        members = {"instruction": In(InstructionStream), "done": Out(1), "cycles": Out(32)}
        members |= {f"count_{name}": Out(32) for name in CLASSES}
        members |= {"count_saturated": Out(32), "source": Out(12), "stream": Out(12)}
        for name, pad in self.pads.items():
            members[f"{name}_fill"] = In(WritePort(pad.depth, pad.width, pad.lanes))
            members[f"{name}_look"] = In(ReadPort(pad.depth, pad.width))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.sfu = sfu = self.sfu
        wiring.connect(m, wiring.flipped(self.instruction), sfu.instruction)
        m.d.comb += self.done.eq(sfu.done)
        for name, pad in self.pads.items():
            setattr(m.submodules, f"{name}_pad", pad)
            wiring.connect(m, wiring.flipped(getattr(self, f"{name}_fill")), pad.write_port())
            wiring.connect(m, wiring.flipped(getattr(self, f"{name}_look")), pad.read_port())
            for port in PORTS[name]:
                read = isinstance(sfu.signature.members[port].signature, ReadPort)
                inner = pad.read_port() if read else pad.write_port()
                wiring.connect(m, getattr(sfu, port), inner)
        counts = [getattr(self, f"count_{name}") for name in CLASSES]
        start = count_cycles(m, self.instruction, self.done, self.cycles)
        with m.If(start):
            m.d.sync += [count.eq(0) for count in (self.count_saturated, *counts)]
        with m.If(sfu.deltas.valid):
            m.d.sync += self.source.eq(sfu.deltas.index)
            m.d.sync += [
                count.eq(count + getattr(sfu.deltas, name))
                for count, name in zip(counts, CLASSES, strict=True)
            ]
        with m.If(sfu.saturated.valid):
            m.d.sync += [
                self.stream.eq(sfu.saturated.index),
                self.count_saturated.eq(self.count_saturated + sfu.saturated.count),
            ]
        return m
