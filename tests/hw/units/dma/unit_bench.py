"""What the tests of the load and store units share: the bench with its memory, comparisons."""

import json
from pathlib import Path

import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.simulation import memory as memories
from signmask.hw.simulation import runner
from signmask.hw.spec.isa import Traffic
from tests.hw.units.dma import dma_programs as programs

BENCH = Path(__file__).parent / "dma_bench.py"

SOURCES = {
    "cpp_sources": [path for path in memories.SOURCES if path.suffix == ".cpp"],
    "verilog_sources": [path for path in memories.SOURCES if path.suffix != ".cpp"],
}

NAMES = [
    pytest.param(name, marks=[] if name == "nano" else [pytest.mark.slow])
    for name in programs.CONFIGS
]


class UnitBench(wiring.Component):
    """A unit with the memory behind its port `axi`; its other ports are those of the bench."""

    def __init__(self, unit, memory):
        self.unit, self.memory = unit, memory
        super().__init__({k: v for k, v in unit.signature.members.items() if k != "axi"})

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit, m.submodules.memory = unit, memory = self.unit, self.memory
        wiring.connect(m, unit.axi, memory.port)
        join(m, unit, self, self.signature.members)
        return m


class AxiBench(wiring.Component):
    """A unit whose port `axi` has AXI4's names and constant members, with the prefix `axi`."""

    def __init__(self, unit):
        self.unit = unit
        others = {k: v for k, v in unit.signature.members.items() if k != "axi"}
        channels = {}
        for name, channel in unit.signature.members["axi"].signature.members.items():
            for member, port in channel.signature.members.items():
                channels[f"axi_{name}{member}"] = port
            if name in ("ar", "aw"):
                channels |= {f"axi_{name}id": Out(1), f"axi_{name}size": Out(3)}
                channels |= {f"axi_{name}burst": Out(2)}
            else:
                channels |= (
                    {} if name == "w" else {f"axi_{name}id": In(1), f"axi_{name}resp": In(2)}
                )
        super().__init__(others | channels)

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = self.unit
        join(m, unit, self, [n for n in unit.signature.members if n != "axi"])
        for name, channel in unit.signature.members["axi"].signature.members.items():
            inner = getattr(unit.axi, name)
            for member, port in channel.signature.members.items():
                here, there = getattr(inner, member), getattr(self, f"axi_{name}{member}")
                m.d.comb += here.eq(there) if port.flow == In else there.eq(here)
            if name in ("ar", "aw"):
                size = (unit.axi.signature.data_bytes - 1).bit_length()
                m.d.comb += [
                    getattr(self, f"axi_{name}size").eq(size),
                    getattr(self, f"axi_{name}burst").eq(1),
                ]
        return m


def join(m, unit, bench, names):
    """Connect ports of the unit to those of the bench that have the same names."""
    for name in names:
        inner, outer, member = getattr(unit, name), getattr(bench, name), bench.signature.members
        if member[name].is_signature:
            wiring.connect(m, inner, wiring.flipped(outer))
        elif member[name].flow == In:
            m.d.comb += inner.eq(outer)
        else:
            m.d.comb += outer.eq(inner)


def words_of(program):
    """Instruction words as hexadecimal numbers."""
    return [item.encode()[::-1].hex() for item in program.instructions]


def simulate(build, description, image, folder, plusargs=(), axi=False):
    """Run a case in a memory that starts with `image`: cocotbext-axi's if `axi`, else that of the
    bench. Returns what dma_bench recorded, and the memory's bytes at the end."""
    path = folder / "case.json"
    if axi:
        memory = folder / "memory"
        image.tofile(memory)
        description = description | {
            "axi": {"memory": str(memory), "write": not description["writes"]}
        }
        path.write_text(json.dumps(description))
        runner.run(build, BENCH, env={"CASE": str(path)})
        written = memory.read_bytes()
    else:
        path.write_text(json.dumps(description))
        file = memories.MemoryFile(programs.MEMORY)
        file.data[:] = image
        file.data.flush()
        runner.run(build, BENCH, env={"CASE": str(path)}, plusargs=[file.plusarg, *plusargs])
        written = file.data.tobytes()
        file.close()
    return json.loads(path.with_suffix(".result").read_text()), written


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
