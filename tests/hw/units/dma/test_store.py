"""The store unit on Verilator against the simulator: memory, bytes counted, cycles."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from signmask.hw.dma.store import StoreUnit
from signmask.hw.simulation import memory as memories
from signmask.hw.simulation import runner
from tests.hw.units.dma import dma_programs as programs
from tests.hw.units.dma.unit_bench import (
    SOURCES,
    AxiBench,
    UnitBench,
    check_cycles,
    check_moved,
    words_of,
)

BENCH = Path(__file__).parent / "dma_bench.py"


def description(core, program):
    """What dma_bench needs to know."""
    return {
        "words": words_of(program), "gaps": program.gaps, "inputs": {}, "writes": {},
        "reads": {
            "accumulator": rows(core.accumulator.data, 32),
            "parameter": rows(core.parameter.data, 48),
        },
    }  # fmt: skip


NAMES = [
    pytest.param(name, marks=[] if name == "nano" else [pytest.mark.slow])
    for name in programs.CONFIGS
]


@cache
def built_bench(config):
    memory = memories.WriteMemory(0, config.axi_bytes)
    return runner.build(UnitBench(StoreUnit(config), memory), "store_bench", **SOURCES)


def simulate(config, core, program, folder, plusargs):
    """Run a program's instructions; returns what dma_bench recorded, and the memory."""
    build = built_bench(config)
    file = memories.MemoryFile(programs.MEMORY)
    path = folder / "case.json"
    path.write_text(json.dumps(description(core, program)))
    runner.run(build, BENCH, env={"CASE": str(path)}, plusargs=[file.plusarg, *plusargs])
    result = json.loads(path.with_suffix(".result").read_text())
    written = np.array(file.data)
    file.close()
    return result, written


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
    built = replace(config, memory_latency=100)
    result, written = simulate(built, model.core, program, folder, plusargs)
    differ = np.flatnonzero(written != model.core.memory.data)
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
    memory = tmp_path / "memory"
    memory.write_bytes(bytes(programs.MEMORY))
    path = tmp_path / "case.json"
    axi = {"memory": str(memory), "write": True}
    path.write_text(json.dumps(description(model.core, program) | {"axi": axi}))
    runner.run(build, BENCH, env={"CASE": str(path)})
    assert memory.read_bytes() == model.core.memory.data.tobytes()
    check_moved(model, program, json.loads(path.with_suffix(".result").read_text()))
