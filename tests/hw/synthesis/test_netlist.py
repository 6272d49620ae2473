"""The flow on small designs; skipped without the tools."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from signmask.hw.emit import emit
from signmask.hw.floating_point import Fp16Multiplier
from signmask.hw.ports import ReadPort, WritePort
from signmask.hw.scratchpad import Scratchpad
from signmask.hw.synthesis.errors import SynthesisError
from signmask.hw.synthesis.netlist import cells_by_module, synthesise
from signmask.hw.synthesis.technology import technology

PERIOD = 5.0
MISSING = [name for name in ("yosys", "yosys-abc", "sta") if shutil.which(name) is None]
if not technology("osu018").liberty.is_file():
    MISSING.append("qflow-tech-osu018")
needs_tools = pytest.mark.skipif(
    bool(MISSING),
    reason=f"needs {', '.join(MISSING)}: apt-get install yosys opensta qflow-tech-osu018",
)


class Counter(wiring.Component):
    """Counts where enabled."""

    def __init__(self) -> None:
        super().__init__({"en": In(1), "count": Out(8)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        with m.If(self.en):
            m.d.sync += self.count.eq(self.count + 1)
        return m


class Outer(wiring.Component):
    """Two counters, a memory, a register file and a scratchpad."""

    def __init__(self) -> None:
        self.read_port, self.write_port = ReadPort(64, 32), WritePort(64, 32, 1)
        super().__init__(
            {
                "en": In(1), "total": Out(9), "address": In(6), "data": In(32), "read": Out(32),
                "held": Out(4), "pad": Out(self.read_port.flip()),
                "pad_write": Out(self.write_port.flip()),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.first, m.submodules.second = first, second = Counter(), Counter()
        m.submodules.words = words = Memory(shape=32, depth=64, init=[])
        m.submodules.registers = registers = Memory(shape=4, depth=4, init=[])
        m.submodules.pad = pad = Scratchpad("pad", 64, 32, 1)
        wiring.connect(m, wiring.flipped(self.pad), pad.read_port())
        wiring.connect(m, wiring.flipped(self.pad_write), pad.write_port())
        read, write = words.read_port(), words.write_port()
        held, hold = registers.read_port(), registers.write_port()
        m.d.comb += [
            first.en.eq(self.en), second.en.eq(~self.en),
            self.total.eq(first.count + second.count),
            read.addr.eq(self.address), read.en.eq(1), self.read.eq(read.data),
            write.addr.eq(self.address), write.en.eq(self.en), write.data.eq(self.data),
            held.addr.eq(self.address), held.en.eq(1), self.held.eq(held.data),
            hold.addr.eq(self.address), hold.en.eq(self.en), hold.data.eq(self.data),
        ]  # fmt: skip
        return m


class Wide(wiring.Component):
    """One register that selects between two wide words."""

    def __init__(self) -> None:
        super().__init__({"choose": In(1), "a": In(400), "b": In(400), "result": Out(400)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        chosen = Signal()
        m.d.sync += [chosen.eq(self.choose), self.result.eq(Mux(chosen, self.a, self.b))]
        return m


@needs_tools
def test_cells_parts_and_memories() -> None:
    library = technology("osu018")
    found = synthesise(emit(Outer(), "outer"), library, PERIOD, divide=True)
    assert {"first", "second"} <= set(found.parts)
    assert found.parts["first"].registers == 8
    # The counters, and the small memory with its read register.
    assert found.top.registers >= 2 * 8 + 4 * 4
    assert found.top.memory_bits == 64 * 32 + 64 * 32
    inner = found.parts["first"].area + found.parts["second"].area
    assert inner < found.top.area < inner + 200 * library.areas["DFFPOSX1"]
    assert found.path_ns is not None
    assert 0.3 < found.path_ns < PERIOD


@needs_tools
def test_named_submodules_keep_their_bounds() -> None:
    design = emit(Outer(), "outer")
    found = synthesise(design, technology("osu018"), PERIOD, keep=("second",))
    assert set(found.parts) == {"second"}


@needs_tools
def test_target_library_and_result_agree() -> None:
    design = emit(Fp16Multiplier(2), "multiplier")
    fine, coarse = (synthesise(design, technology(name), PERIOD) for name in ("osu018", "osu035"))
    assert fine.top.registers == coarse.top.registers
    assert fine.top.area < coarse.top.area
    assert fine.path_kind == "register to register"


@needs_tools
def test_wide_nets_of_registers_are_buffered() -> None:
    found = synthesise(emit(Wide(), "wide"), technology("osu018"), PERIOD)
    assert found.path_ns is not None
    assert found.path_ns < 3


def test_statistics_with_a_comma_too_many() -> None:
    text = """{
   "creator": "Yosys",
   "modules": {
      "\\\\top": {
         "num_cells":         3,
         "num_cells_by_type": {
            "$paramod\\\\inner": 1,
            "INVX1": 2
         }
      },
      "\\\\inner": {
         "num_cells":         0,
         "num_cells_by_type": {

         }
      },
   },
      "design": {
         "num_cells_by_type": {
            "INVX1": 2
         }
      }
}
"""
    assert cells_by_module(text) == {"\\top": {"$paramod\\inner": 1, "INVX1": 2}, "\\inner": {}}


@pytest.mark.parametrize("name", ["yosys", "sta"])
def test_missing_tool_is_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for other in {"yosys", "yosys-abc", "sta"} - {name}:
        (tmp_path / other).write_text("#!/bin/sh\n")
        (tmp_path / other).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SynthesisError, match=rf"'{name}' is not on PATH; install it with 'apt-get"):
        synthesise(emit(Counter(), "counter"), technology("osu018"), PERIOD)
