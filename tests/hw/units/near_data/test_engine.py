"""The near-data engine in Verilator against sim/: memory, counts, bytes and cycles."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from signmask.hw.near_data.engine import NearDataEngine
from signmask.hw.simulation import memory, runner
from signmask.hw.spec.config import EDGE, NANO, ConfigError
from tests.hw.units.near_data.engine_bench import EngineBench

HERE = Path(__file__).parent
MEMORY = 1 << 23
ALL = ["READ", "UPDATE_STREAM", "PREPARE", "UPDATE_CODES"]

# Lanes and beats in all proportions: bitmaps of 2 to 32 words per beat, tables of several words per
# beat and of several beats per word; regions that begin within a beat.
CONFIGS = {
    "nano": NANO,
    "edge": replace(EDGE, near_data_latency=13),
    "narrow": replace(NANO, group=8, near_data_bytes=16, near_data_latency=1),
    "wide": replace(NANO, group=64, axi_bytes=64, columns=64, full_lanes=4, near_data_latency=90),
}
SLOW = ("edge", "narrow", "wide")


@cache
def built_bench(config):
    return runner.build(EngineBench(config), "engine_bench")


def run(config, cases, stall_seed=None, test="instructions"):
    """Run cases on the built engine; exact in cycles unless there are stalls."""
    config = replace(config, engine_words=1024)
    build = built_bench(config)
    file = memory.MemoryFile(MEMORY)
    parameters = {
        "config": config.to_json(), "memory": str(file.path), "cases": cases,
        "exact": stall_seed is None,
    }  # fmt: skip
    plusargs = memory.plusargs(config.near_data_latency, stall_seed=stall_seed)
    runner.run(
        build, HERE / "engine_cocotb.py", test, {"PARAMETERS": json.dumps(parameters)},
        [file.plusarg, *plusargs],
    )  # fmt: skip
    file.close()


def configs():
    return [
        pytest.param(config, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, config in CONFIGS.items()
    ]


def case(seed, after_dense=False, **fixed):
    return {"seed": seed, "names": ALL, "after_dense": after_dense, "fixed": fixed}


@pytest.mark.parametrize("config", configs())
def test_random_instructions(config):
    run(config, [case(seed, after_dense=seed % 3 == 0) for seed in range(40)])


@pytest.mark.parametrize("config", configs())
def test_every_loop_and_norm(config):
    run(
        config,
        [
            case(seed, after_dense=bool(seed & 1), loop=loop, norm=norm, segment_bits=bits)
            for seed, (loop, norm, bits) in enumerate(
                (loop, norm, bits)
                for loop in ("closed", "open", "carry")
                for norm in ("affine", "trend", "calibrated")
                for bits in (0, 1, 3)
            )
        ],
    )


@pytest.mark.parametrize("config", configs())
def test_norms_with_a_gain_per_step(config):
    run(
        config,
        [
            case(seed, norm="trend", loop=loop, segment_bits=bits, stepped=1, steps=[3, 1])
            for seed, (loop, bits) in enumerate(
                (loop, bits) for loop in ("closed", "open", "carry") for bits in (0, 2)
            )
        ],
    )


@pytest.mark.parametrize("config", configs())
def test_corner_shapes(config):
    run(
        config,
        [
            # One word; planes of one word; many frames; frames that end with their plane; lists
            # that are full or empty.
            case(1, planes=[1], images=1, positions=1),
            case(2, planes=[5, 4], images=1, positions=1, loop="closed", outliers=1),
            case(3, planes=[2], images=1, positions=1000, outliers=0.1, loop="closed"),
            case(4, planes=[2], images=3, positions=128, outliers=0, loop="closed"),
            case(5, planes=[1, 2], images=2, positions=256, outliers=1, loop="closed"),
            case(6, planes=[1, 1, 1, 1], images=8, positions=3, loop="carry", after_dense=True),
        ],
    )


@pytest.mark.parametrize("latency", [1, 2, 5, 40])
def test_no_trace_of_the_instruction_before(latency):
    # Instructions on planes of one word are so short that words of one are in the pipeline when the
    # next one starts; the pairs are all that there are.
    config = replace(NANO, group=8, near_data_bytes=32, near_data_latency=latency, columns=8)
    names = [name for first in ALL for second in ALL for name in (first, second)]
    fixed = {"images": 1, "positions": 1}
    cases = [
        case(seed, planes=[1, 3], norm="trend", loop="closed", segment_bits=0, **fixed)
        for seed in range(4)
    ]
    cases += [case(seed, after_dense=bool(seed & 1), **fixed) for seed in range(4, 12)]
    run(config, [item | {"names": names} for item in cases], test="successions")


@pytest.mark.parametrize("stall_seed", [1, 2])
@pytest.mark.parametrize("config", configs())
def test_stalls_change_only_cycles(config, stall_seed):
    run(config, [case(100 + seed) for seed in range(20)], stall_seed)


def test_beats_are_powers_of_two():
    with pytest.raises(ConfigError, match="power of two"):
        NearDataEngine(replace(NANO, near_data_bytes=96))
