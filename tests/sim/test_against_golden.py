"""Compiled networks on the simulator and on the golden model: the same bits, the same counters."""

from dataclasses import replace

import numpy as np
import pytest

from signmask.compiler.backend.lower import lower
from signmask.hw.spec.config import EDGE, NANO, PAPER
from signmask.hw.spec.isa import decode_all
from signmask.hw.spec.network import Knobs
from signmask.reference.golden import GoldenModel
from signmask.sim.errors import SimulationError
from signmask.sim.machine import Machine
from tests.assembler import assemble
from tests.tiny_networks import NETWORKS, input_codes

SETTINGS = {
    "dense": Knobs(dataflow="dense"),
    "restore": Knobs(dataflow="restore", overflow="spill"),
    "restore clip": Knobs(dataflow="restore", overflow="clip"),
    "mask": Knobs(),
    "paper": Knobs(loop="open", norm="calibrated", overflow="clip", mask_bits=1, grid_bits=0),
    "carry": Knobs(loop="carry", carry_bits=3, overflow="spill"),
    "open trend": Knobs(loop="open", overflow="clip"),
    "closed calibrated": Knobs(norm="calibrated", overflow="spill", mask_bits=2),
}
SHAPES = {"minimal": {}, "residual": {}, "unet": {"channels": (24, 64)}}


def compiled(name, setting, batch, config=NANO):
    network, tensors = NETWORKS[name](seed=3, knobs=SETTINGS[setting], steps=5, **SHAPES[name])
    return lower(network, tensors, config, batch)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("name", SHAPES)
def test_equal_bits_and_counters(name, setting, batch):
    program = compiled(name, setting, batch)
    golden = GoldenModel(program.network, program.tensors, batch)
    machine = Machine(program)
    codes = input_codes(program.network, batch, seed=5)
    # A refresh at step 3, and a skipped step.
    for step, phase in ((0, "dense"), (1, "delta"), (3, "dense"), (4, "delta"), (2, "delta")):
        want = getattr(golden, f"{phase}_step")(step, codes[step])
        got = getattr(machine, f"{phase}_step")(step, codes[step])
        assert np.array_equal(got.accumulators, want.accumulators), f"step {step}"
        assert got.accumulators.dtype == np.int32
        for source, counters in want.counters.items():
            if source != "streams":  # REQUANTISE does not say which stream it writes
                assert got.counters[source] == counters, f"step {step}, {source}"
        assert machine.last == step


CONFIGS = {
    "edge": EDGE,
    "paper": replace(PAPER, input_words=65536, weight_words=4096),
    "columns wider than a group": replace(
        NANO, group=8, columns=16, full_lanes=1, inlier_bits=5, rows=3
    ),
    "short latency": replace(NANO, memory_latency=1, inlier_bits=4, axi_bytes=32),
}


@pytest.mark.parametrize("config", CONFIGS)
def test_equal_bits_on_other_hardware(config):
    hardware = CONFIGS[config]
    knobs = Knobs(
        group=hardware.group, full_lanes=hardware.full_lanes, inlier_bits=hardware.inlier_bits,
        overflow="clip",
    )  # fmt: skip
    network, tensors = NETWORKS["unet"](seed=4, knobs=knobs, channels=(24, 128))
    golden, machine = (
        GoldenModel(network, tensors, 2),
        Machine(lower(network, tensors, hardware, 2)),
    )
    codes = input_codes(network, 2)
    for step, phase in enumerate(("dense_step", "delta_step", "delta_step")):
        want = getattr(golden, phase)(step, codes[step])
        got = getattr(machine, phase)(step, codes[step])
        assert np.array_equal(got.accumulators, want.accumulators)


def test_no_token_is_missed_unnoticed():
    """Every single wait taken out of a compiled program either leaves a token over or is a race."""
    program = compiled("minimal", "mask", 1)
    codes = input_codes(program.network, 1, seed=5)
    instructions = decode_all(program.code["delta"])
    removed = 0
    for index, instruction in enumerate(instructions):
        for queue in instruction.waits:
            changed = list(instructions)
            changed[index] = replace(instruction, waits=instruction.waits - {queue})
            code = {**program.code, "delta": assemble(changed)}
            machine = Machine(replace(program, code=code))
            machine.dense_step(0, codes[0])
            with pytest.raises(SimulationError, match=r"without a token|leaves \d+ tokens"):
                machine.delta_step(1, codes[1])
            removed += 1
    assert removed > 5


def test_cycles_do_not_depend_on_the_run():
    program, results = compiled("residual", "mask", 1), []
    codes = input_codes(program.network, 1)
    for _ in range(2):
        machine = Machine(program)
        results.append([machine.dense_step(0, codes[0]), machine.delta_step(1, codes[1])])
    for first, second in zip(*results, strict=True):
        assert (first.cycles, first.busy, first.traffic) == (
            second.cycles, second.busy, second.traffic,
        )  # fmt: skip
        assert first.cycles >= max(first.busy.values()) > 0
        assert sum(first.traffic.values()) > 0


def test_slower_memory_takes_longer_but_gives_the_same_bits():
    fast = compiled("residual", "mask", 1)
    slow = compiled("residual", "mask", 1, replace(NANO, memory_latency=400, near_data_bytes=16))
    codes = input_codes(fast.network, 1)
    results = []
    for program in (fast, slow):
        machine = Machine(program)
        machine.dense_step(0, codes[0])
        results.append(machine.delta_step(1, codes[1]))
    assert np.array_equal(results[0].accumulators, results[1].accumulators)
    assert results[0].cycles < results[1].cycles
    assert results[0].traffic == results[1].traffic


def test_a_planted_bug_shows():
    """One flipped bit of a weight in the program's memory changes the result."""
    program = compiled("residual", "mask", 1)
    region = next(r for r in program.memory_map if r["name"].startswith("weights/"))
    image = program.image.copy()
    image[region["address"]] ^= 4
    codes = input_codes(program.network, 1)
    good, bad = Machine(program), Machine(replace(program, image=image))
    good, bad = good.dense_step(0, codes[0]), bad.dense_step(0, codes[0])
    assert not np.array_equal(good.accumulators, bad.accumulators)


def test_live_norm_in_a_mask_step_has_no_code():
    network, tensors = NETWORKS["residual"](knobs=Knobs(norm="live"))
    program = lower(network, tensors, NANO, 1)
    with pytest.raises(SimulationError, match="golden model only; use the backend 'reference'"):
        Machine(program)


def test_a_delta_step_needs_a_dense_one():
    program = compiled("minimal", "mask", 1)
    codes = input_codes(program.network, 1)
    with pytest.raises(SimulationError, match="delta step 1 has no step before it"):
        Machine(program).delta_step(1, codes[1])


@pytest.mark.parametrize("step", [-1, 5])
def test_steps_that_do_not_exist(step):
    program = compiled("minimal", "mask", 1)
    with pytest.raises(SimulationError, match=f"step {step} does not exist"):
        Machine(program).dense_step(step, input_codes(program.network, 1)[0])


def test_input_of_another_shape_or_type():
    machine = Machine(compiled("minimal", "mask", 1))
    for codes in (np.zeros((2, 4, 4, 3), np.int8), np.zeros((1, 4, 4, 3), np.int32)):
        with pytest.raises(SimulationError, match=r"input codes are .* the program takes int8"):
            machine.dense_step(0, codes)


def test_observer_sees_every_instruction_in_order_of_time():
    program, seen = compiled("minimal", "mask", 1), []
    machine = Machine(program, observer=lambda *event: seen.append(event))
    result = machine.dense_step(0, input_codes(program.network, 1)[0])
    assert sorted(index for index, *_ in seen) == list(range(len(program.code["dense"])))
    starts = [start for _, _, start, _ in seen]
    assert starts == sorted(starts)
    assert max(done for *_, done in seen) == result.cycles
