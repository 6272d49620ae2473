"""What the RTL backend and its test bench refuse, and how they lay out memory and registers."""

from dataclasses import replace

import numpy as np
import pytest

from signmask.hw.emit import Design, Port
from signmask.hw.errors import RtlError
from signmask.hw.register_map import register_map
from signmask.hw.simulation import bench, memory
from signmask.hw.simulation.backend import PAGE, RtlMachine, check_sizes, load
from signmask.hw.simulation.operations import Operations
from signmask.hw.spec.config import NANO
from signmask.hw.spec.memory_map import MemoryMap
from tests.runtime.programs import tiny_program


def ports(data_bits=128):
    """Ports of an accelerator as the bench wants them."""
    names = [*bench.PASSED, *bench.TRACES]
    names += [f"{p}_{m}" for p in bench.READS for m in bench.READ_MEMBERS]
    names += [f"{p}_{m}" for p in bench.WRITES for m in bench.WRITE_MEMBERS]
    widths = {"rdata": data_bits, "wdata": data_bits, "wstrb": data_bits // 8}
    return tuple(Port(name, widths.get(name.split("_")[-1], 1), "input") for name in names)


def test_bench_has_the_control_port_and_hides_memory():
    made = bench.bench(Design("top", {}, (*ports(), Port("control_araddr", 12, "input"))), NANO)
    assert {port.name for port in made.ports} == {"clk", "rst", "interrupt", "control_araddr"}
    assert ".INDEX(3), .BYTES(16)" in made.sources["signmask_bench.sv"]


def test_bench_names_the_missing_port():
    with pytest.raises(RtlError, match="has no port near_wlast"):
        bench.bench(Design("top", {}, tuple(p for p in ports() if p.name != "near_wlast")), NANO)


def test_bench_refuses_beats_that_memory_cannot_move():
    with pytest.raises(RtlError, match="512 bytes per beat"):
        bench.bench(Design("top", {}, ports(4096)), NANO)


def test_latencies_are_the_configurations():
    config = replace(NANO, memory_latency=9, near_data_latency=4)
    assert bench.latencies(config) == {0: 9, 1: 9, 2: 4, 3: 9, 4: 4}


def test_wide_registers_take_two_words():
    registers = register_map(NANO)
    control = Operations(registers)
    control.write("PROGRAM", 0x12_3456_7800)
    control.read("CYCLES")
    control.read_window("STREAMS", 2)
    program, cycles = registers["PROGRAM"].offset, registers["CYCLES"].offset
    assert control.operations[:2] == [
        ["write", program, 0x3456_7800], ["write", program + 4, 0x12]
    ]  # fmt: skip
    assert control.operations[2:4] == [["read", cycles], ["read", cycles + 4]]
    assert control.values([7, 1, 5, 6]) == {
        "CYCLES": 7 + (1 << 32), "STREAMS[0].saturated": 5, "STREAMS[1].saturated": 6,
    }  # fmt: skip


def test_instructions_lie_behind_the_memory_map():
    program = tiny_program()
    code = {"dense": np.full((3, 32), 1, np.uint8), "delta": np.full((200, 32), 2, np.uint8)}
    regions = MemoryMap()
    regions.allocate("weights", "weights", 300)
    end = regions.end
    program = replace(
        program, code=code, image=np.full(100, 9, np.uint8), memory_map=regions.to_json()
    )
    places, file = load(program, end)
    try:
        (first, three), (second, many) = places["dense"], places["delta"]
        assert (three, many) == (3, 200) and first >= end and second == first + PAGE
        assert (file.data[first : first + 96] == 1).all()
        assert (file.data[second : second + 6400] == 2).all()
        assert (file.data[:100] == 9).all() and file.data.size == second + 2 * PAGE
    finally:
        file.close()


def test_refusals():
    with pytest.raises(RtlError, match="has no code"):
        RtlMachine(replace(tiny_program(), code={}))
    registers = register_map(NANO)
    with pytest.raises(RtlError, match=r"1000 streams.*raise counter_entries"):
        check_sizes(NANO, registers, 3, 1000)


def test_memory_plusargs():
    assert memory.plusargs(5, {2: 7}, stall_seed=3, stall_percent=40) == [
        "+latency=5", "+latency_2=7", "+stall_seed=3", "+stall_percent=40",
    ]  # fmt: skip
