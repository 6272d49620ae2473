"""The store unit on Verilator against the simulator: memory, bytes counted, cycles."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from signmask.hw.dma.store import StoreUnit
from signmask.hw.simulation import memory as memories
from signmask.hw.simulation import runner
from tests.hw.units.dma import dma_programs as programs
from tests.hw.units.dma.unit_bench import (
    NAMES,
    SOURCES,
    AxiBench,
    UnitBench,
    check_cycles,
    check_moved,
    simulate,
    words_of,
)

EMPTY = np.zeros(programs.MEMORY, np.uint8)


def description(core, program):
    """What dma_bench needs to know."""
    return {
        "words": words_of(program), "gaps": program.gaps, "inputs": {}, "writes": {},
        "reads": {
            "accumulator": rows(core.accumulator.data, 32),
            "parameter": rows(core.parameter.data, 48),
        },
    }  # fmt: skip


@cache
def built_bench(config):
    memory = memories.WriteMemory(0, config.axi_bytes)
    return runner.build(UnitBench(StoreUnit(config), memory), "store_bench", **SOURCES)


def rows(data, bits):
    """Scratchpad words as hexadecimal numbers."""
    mask = (1 << bits) - 1
    return [
        hex(sum((value & mask) << bits * lane for lane, value in enumerate(row)))
        for row in data.tolist()
    ]


def case(name, latency, seed, count=60, gap=0.3):
    rng = np.random.default_rng(seed)
    config = replace(programs.CONFIGS[name], memory_latency=latency)
    model = programs.Model(config, np.zeros(0, np.uint8))
    made = []
    for item in programs.store_program(config, rng, model.core, count):
        wide = item.fields.get("wide_bytes", 4)
        words = model.core.accumulator.data[item.fields.get("accumulator", 0) :]
        if wide == 4 or np.abs(words[: item.fields["words"]].astype(np.int64)).max() < 1 << 15:
            made.append(item)
    gaps = [int(rng.integers(0, 3 * latency)) if rng.random() < gap else 0 for _ in made]
    return config, model, model.run(made, gaps)


def compare(name, latency, seed, folder, stalls=False):
    config, model, program = case(name, latency, seed)
    plusargs = memories.plusargs(latency, **({"stall_seed": 3} if stalls else {}))
    build = built_bench(replace(config, memory_latency=100))
    result, written = simulate(build, description(model.core, program), EMPTY, folder, plusargs)
    differ = np.flatnonzero(np.frombuffer(written, np.uint8) != model.core.memory.data)
    assert not differ.size, differ[:20]
    check_moved(model, program, result)
    if not stalls:
        check_cycles(program, result)


@pytest.mark.parametrize("latency", [1, 10, 100])
@pytest.mark.parametrize("name", NAMES)
def test_cycles(name, latency, tmp_path):
    compare(name, latency, latency, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_stalls(name, tmp_path):
    compare(name, 7, 2, tmp_path, stalls=True)


def test_protocol(tmp_path):
    """cocotbext-axi answers, with pauses; it refuses bursts across 4 KiB."""
    config, model, program = case("nano", 100, 5, count=30)
    build = runner.build(AxiBench(StoreUnit(config)), "store_axi")
    described = description(model.core, program)
    result, written = simulate(build, described, EMPTY, tmp_path, axi=True)
    assert written == model.core.memory.data.tobytes()
    check_moved(model, program, result)
