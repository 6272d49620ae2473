"""The sequencer starts every instruction in the cycle in which the simulator starts it."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from signmask.hw.sequencer import PIPELINED, Sequencer
from signmask.hw.simulation import runner
from signmask.hw.spec import timing
from signmask.hw.spec.config import ConfigError, HardwareConfig
from signmask.hw.spec.isa import FORMATS, INSTRUCTION_BYTES, Instruction, Queue
from signmask.sim import sequencer
from signmask.sim.core import Core, Cost
from signmask.sim.counters import Counters

BENCH = Path(__file__).parent / "sequencer_bench.py"
NAMES = {queue: [n for n, f in FORMATS.items() if f.queue == queue] for queue in Queue}
COST_AT = 64


def config_of(**fields):
    return HardwareConfig("test", **({"group": 8, "columns": 8} | fields))


def random_program(rng, count, longest):
    """Instructions with tokens that never deadlock, and their costs."""
    instructions = []
    pending = {(s, t): 0 for s in Queue for t in Queue}
    weights = rng.dirichlet([1.0] * len(Queue))
    for i in range(count):
        queue = Queue(int(rng.choice(len(Queue), p=weights)))
        waits = {s for s in Queue if pending[s, queue] and rng.random() < 0.6}
        signals = {t for t in Queue if rng.random() < 0.25}
        if i > 0.7 * count:
            signals = set()
        for s in waits:
            pending[s, queue] -= 1
        for t in signals:
            pending[queue, t] += 1
        instructions.append((queue, waits, signals))
    for (source, queue), left in pending.items():  # tokens left over
        instructions += [(queue, {source}, set())] * left
    costs = []
    for queue, _, _ in instructions:
        occupied = int(rng.integers(1, longest + 1))
        # Those of load and store are pipelined: done in order, later than the next one starts.
        costs.append((occupied, occupied + longest) if queue in PIPELINED else (occupied + 1,) * 2)
    names = [str(rng.choice(NAMES[queue])) for queue, _, _ in instructions]
    made = [
        Instruction(name, {f: 0 for f, _, _ in FORMATS[name].fields}, frozenset(w), frozenset(s))
        for name, (_, w, s) in zip(names, instructions, strict=True)
    ]
    return made, costs


def encoded(made, costs):
    """Instruction words that carry index and costs where the dummies look for them."""
    data = b""
    for index, (instruction, cost) in enumerate(zip(made, costs, strict=True)):
        word = int.from_bytes(instruction.encode(), "little")
        for i, value in enumerate((index, *cost)):
            word |= value << COST_AT + 24 * i
        data += word.to_bytes(INSTRUCTION_BYTES, "little")
    return data


def simulated(config, made, costs):
    core = Core(config, np.zeros(0, np.uint8), 64, Counters((), (), 3))
    tagged = [Instruction(i.name, {"index": n}, i.waits, i.signals) for n, i in enumerate(made)]
    seen = []
    units = dict.fromkeys(FORMATS, lambda fields: Cost(*costs[fields["index"]]))
    sequence = sequencer.Sequence("test", tagged, units, config)
    timeline = sequencer.run(
        sequence, core, trace=lambda index, _, start, done: seen.append([index, start, done])
    )
    return timeline, sorted(seen)


@cache
def built(config):
    return runner.build(Sequencer(config), "sequencer")


def hardware(tmp_path, config, data, count, program=64, stall=0.0, limit=100_000):
    # Memory's latency makes no difference to the design.
    build = built(replace(config, memory_latency=1))
    results = tmp_path / "results.json"
    parameters = {
        "memory": data.hex(), "program": program, "count": count, "axi_bytes": config.axi_bytes,
        "latency": config.memory_latency, "stall": stall, "seed": 1, "limit": limit,
        "results": str(results),
    }  # fmt: skip
    runner.run(build, BENCH, "runs", env={"PARAMETERS": json.dumps(parameters)})
    return json.loads(results.read_text())


CASES = [
    # axi_bytes, latency, queue_depth, instructions, longest, program
    (16, 100, 16, 300, 40, 64),
    (16, 1, 2, 150, 20, 4096 - 64),
    (16, 3, 1, 60, 10, 0),
    (8, 20, 4, 100, 8, 4096 - 64),
    (32, 7, 3, 200, 12, 4096 - 64),
    (64, 40, 16, 301, 6, 4096 - 64),
    (64, 1, 5, 151, 2, 64),
    (128, 13, 7, 205, 3, 4096 - 128),
]


@pytest.mark.parametrize(("axi", "latency", "depth", "count", "longest", "program"), CASES)
def test_cycles_equal_those_of_the_simulator(
    axi, latency, depth, count, longest, program, tmp_path
):
    config = config_of(axi_bytes=axi, memory_latency=latency, queue_depth=depth)
    rng = np.random.default_rng([axi, latency, depth])
    made, costs = random_program(rng, count, longest)
    timeline, seen = simulated(config, made, costs)
    data = encoded(made, costs) + bytes(axi)
    for result in hardware(tmp_path, config, data, len(made), program):
        assert result["seen"] == seen
        assert result["cycles"] == result["ended"] == timeline.cycles
        assert dict(zip(timeline.busy, result["busy"], strict=True)) == timeline.busy
        assert not result["illegal"] and not result["unread"]


def test_stalls_keep_the_order(tmp_path):
    config = config_of(axi_bytes=16, memory_latency=5, queue_depth=3)
    made, costs = random_program(np.random.default_rng(5), 120, 10)
    timeline, _ = simulated(config, made, costs)
    for result in hardware(tmp_path, config, encoded(made, costs), len(made), stall=0.4):
        assert [index for index, _, _ in result["seen"]] == list(range(len(made)))
        assert result["cycles"] > timeline.cycles
        assert dict(zip(timeline.busy, result["busy"], strict=True)) == timeline.busy
        tokens = {(s, t): [] for s in Queue for t in Queue}
        for instruction, (_, start, done) in zip(made, result["seen"], strict=True):
            for source in instruction.waits:
                assert tokens[source, instruction.queue].pop(0) <= start
            for target in instruction.signals:
                tokens[instruction.queue, target].append(done)


def test_instructions_in_flight_are_bounded(tmp_path):
    config = config_of(axi_bytes=32, memory_latency=2, queue_depth=8)
    count = timing.IN_FLIGHT + 20
    fields = {f: 0 for f, _, _ in FORMATS["LOAD_RAW"].fields}
    made = [Instruction("LOAD_RAW", fields)] * count
    costs = [(1, 600)] * count
    _, seen = simulated(config, made, costs)
    assert seen[-1][1] > 600
    assert hardware(tmp_path, config, encoded(made, costs), count)[0]["seen"] == seen


@pytest.mark.parametrize("axi", [16, 64])
def test_an_unknown_opcode_is_left_out_and_reported(axi, tmp_path):
    config = config_of(axi_bytes=axi, memory_latency=4)
    made, costs = random_program(np.random.default_rng(6), 9, 5)
    data = bytearray(encoded(made, costs))
    at = 3 * INSTRUCTION_BYTES
    free = Instruction("COPY", {f: 0 for f, _, _ in FORMATS["COPY"].fields}).encode()
    data[at:at] = bytes([255]) + free[1:]
    for result in hardware(tmp_path, config, bytes(data) + bytes(axi), len(made) + 1):
        assert [index for index, _, _ in result["seen"]] == list(range(len(made)))
        assert result["illegal"]


@pytest.mark.parametrize("axi", [16, 64])
def test_an_empty_program_ends_at_once(axi, tmp_path):
    config = config_of(axi_bytes=axi)
    for result in hardware(tmp_path, config, b"", 0):
        assert (result["cycles"], result["bursts"], result["seen"]) == (0, 0, [])


def test_bus_widths_that_axi_does_not_know_are_refused():
    with pytest.raises(ConfigError, match="axi_bytes 24 is no power of two"):
        Sequencer(config_of(axi_bytes=24))
