"""The PE array with its scratchpads, ports to fill and read them, and a count of cycles."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.instruction import InstructionStream
from signmask.hw.pe_array import PeArray
from signmask.hw.ports import ReadPort, WritePort
from signmask.hw.scratchpad import Scratchpad
from tests.hw.units.cycle_count import count_cycles


class ArrayHarness(wiring.Component):
    """`cycles` counts from the start of an instruction to its done, both included."""

    def __init__(self, config):
        self.array = PeArray(config)
        n = config.group
        self.pads = {
            "input": Scratchpad("input", config.input_words, n * 9, n),
            "weight": Scratchpad(
                "weight", config.weight_words, config.columns * n * 8, config.columns * n
            ),
            "accumulator": Scratchpad("accumulator", config.accumulator_words, n * 32, n),
        }
        self.modules = self.array.modules
        members = {"instruction": In(InstructionStream), "done": Out(1), "cycles": Out(32)}
        for name, pad in self.pads.items():
            members[f"{name}_fill"] = In(WritePort(pad.depth, pad.width, pad.lanes))
        pad = self.pads["accumulator"]
        members["look"] = In(ReadPort(pad.depth, pad.width))
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        m.submodules.array = array = self.array
        wiring.connect(m, wiring.flipped(self.instruction), array.instruction)
        m.d.comb += self.done.eq(array.done)
        for name, pad in self.pads.items():
            setattr(m.submodules, f"{name}_pad", pad)
            wiring.connect(m, wiring.flipped(getattr(self, f"{name}_fill")), pad.write_port())
        wiring.connect(m, wiring.flipped(self.look), self.pads["accumulator"].read_port())
        for name, member in array.signature.members.items():
            pad = self.pads.get(name.split("_")[0])
            if pad is not None:
                read = isinstance(member.signature, ReadPort)
                port = pad.read_port() if read else pad.write_port()
                wiring.connect(m, getattr(array, name), port)
        count_cycles(m, self.instruction, self.done, self.cycles)
        return m
