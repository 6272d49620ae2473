"""What the tests of the load and store units share: the bench with its memory, comparisons."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from signmask.hw.simulation import memory as memories
from signmask.hw.spec.isa import Traffic

SOURCES = {
    "cpp_sources": [path for path in memories.SOURCES if path.suffix == ".cpp"],
    "verilog_sources": [path for path in memories.SOURCES if path.suffix != ".cpp"],
}


class UnitBench(wiring.Component):
    """A unit with the memory behind its port `axi`; its other ports are those of the bench."""

    def __init__(self, unit, memory):
        self.unit, self.memory = unit, memory
        super().__init__({k: v for k, v in unit.signature.members.items() if k != "axi"})

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit, m.submodules.memory = unit, memory = self.unit, self.memory
        wiring.connect(m, unit.axi, memory.port)
        for name, member in self.signature.members.items():
            inner, outer = getattr(unit, name), getattr(self, name)
            if member.is_signature:
                wiring.connect(m, inner, wiring.flipped(outer))
            elif member.flow == In:
                m.d.comb += inner.eq(outer)
            else:
                m.d.comb += outer.eq(inner)
        return m


def words_of(program):
    """Instruction words as hexadecimal numbers."""
    return [item.encode()[::-1].hex() for item in program.instructions]


def check_moved(model, program, result):
    """One event per instruction, which sum up to the simulator's bytes."""
    kinds = [kind.name.lower() for kind in Traffic]
    traffic = dict.fromkeys(kinds, 0)
    for kind, size in result["moved"]:
        traffic[kinds[kind]] += size
    assert len(result["moved"]) == len(program.instructions)
    assert traffic == {kind: model.counters.traffic[kind] for kind in kinds}


def check_cycles(program, result):
    """Start and end of each instruction."""
    names = [item.name for item in program.instructions]
    got = list(zip(names, result["starts"], result["dones"], strict=True))
    assert got == list(zip(names, program.starts, program.dones, strict=True))
