"""The load unit on Verilator against the simulator: words written, bytes counted, cycles."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from signmask.hw.dma.load import WRITES, LoadUnit
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

WIDTHS = dict(input=9, weight=8, accumulator=32, segments=3, corrections=16, parameter=48)


def description(config, program):
    """What dma_bench needs to know."""
    lanes = dict.fromkeys(WRITES, config.group) | {"weight": config.group * config.columns}
    return {
        "words": words_of(program), "gaps": program.gaps,
        "inputs": {"now": programs.NOW, "last": programs.LAST},
        "reads": {}, "writes": {name: (WIDTHS[name], lanes[name]) for name in WRITES},
    }  # fmt: skip


@cache
def built_bench(config):
    memory = memories.ReadMemory(0, config.axi_bytes)
    return runner.build(UnitBench(LoadUnit(config), memory), "load_bench", **SOURCES)


def check(model, program, result, cycles):
    """Compare with the simulator."""
    pads = {
        "input": model.core.input, "weight": model.core.weight,
        "accumulator": model.core.accumulator, "segments": model.core.segments,
        "corrections": model.core.corrections, "parameter": model.core.parameter,
    }  # fmt: skip
    for name, pad in pads.items():
        width = WIDTHS[name]
        got = {int(at): int(value, 16) for at, value in result["pads"][name].items()}
        for at in range(pad.words):
            want = 0
            for lane, value in enumerate(pad.data[at].reshape(-1).tolist()):
                want |= (int(value) & (1 << width) - 1) << width * lane
            assert got.get(at, 0) == want, (name, at)
    check_moved(model, program, result)
    if cycles:
        check_cycles(program, result)


def case(name, latency, seed, count=60, gap=0.3):
    rng = np.random.default_rng(seed)
    config = replace(programs.CONFIGS[name], memory_latency=latency)
    image = programs.initial_memory(rng)
    instructions = programs.load_program(config, rng, image, count)
    gaps = [int(rng.integers(0, 3 * latency)) if rng.random() < gap else 0 for _ in instructions]
    model = programs.Model(config, image)
    return config, model, model.run(instructions, gaps), image


@pytest.mark.parametrize("latency", [1, 10, 100])
@pytest.mark.parametrize("name", NAMES)
def test_cycles(name, latency, tmp_path):
    config, model, program, image = case(name, latency, seed=latency)
    build = built_bench(replace(config, memory_latency=100))
    plusargs = memories.plusargs(latency)
    result, _ = simulate(build, description(config, program), image, tmp_path, plusargs)
    check(model, program, result, cycles=True)


@pytest.mark.parametrize("name", NAMES)
def test_stalls(name, tmp_path):
    config, model, program, image = case(name, 7, seed=2, gap=0.1)
    build = built_bench(replace(config, memory_latency=100))
    plusargs = memories.plusargs(7, stall_seed=3, stall_percent=40)
    result, _ = simulate(build, description(config, program), image, tmp_path, plusargs)
    check(model, program, result, cycles=False)


def test_protocol(tmp_path):
    """cocotbext-axi answers, with pauses; it refuses bursts across 4 KiB."""
    config, model, program, image = case("nano", 100, 5, count=30)
    build = runner.build(AxiBench(LoadUnit(config)), "load_axi")
    result, _ = simulate(build, description(config, program), image, tmp_path, axi=True)
    check(model, program, result, cycles=False)
