"""Control port and counters on Verilator, against the simulator's counters."""

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.control import Control
from signmask.hw.counters import Counters
from signmask.hw.register_map import register_map
from signmask.hw.simulation import runner
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import INSTRUCTION_BYTES, Queue, Traffic
from signmask.sim.counters import KEYS
from signmask.sim.counters import Counters as SimulatedCounters

BENCH = Path(__file__).parent / "control_bench.py"
N, INLIER_BITS = 16, 3
STATE = {"running": 1, "finished": 1, "illegal": 1, "cycles": 48}
SHOWN = {"start": 1, "interrupt": 1, "program": 40, "count": 24, "now": 16, "last": 16,
         "after_dense": 1}  # fmt: skip
# Members of the port by who drives them: the host or the port.
DRIVEN = (("aw", "addr"), ("aw", "valid"), ("w", "data"), ("w", "strb"), ("w", "valid"),
          ("b", "ready"), ("ar", "addr"), ("ar", "valid"), ("r", "ready"))  # fmt: skip
ANSWERED = (("aw", "ready"), ("w", "ready"), ("b", "valid"), ("b", "resp"), ("ar", "ready"),
            ("r", "valid"), ("r", "resp"), ("r", "data"))  # fmt: skip
EVENTS = ("load_moved", "store_moved", "engine_moved", "deltas", "segment_changes",
          "vector_saturated", "engine_saturated")  # fmt: skip


class Bench(wiring.Component):
    """Control port and counters, with the AXI names that drivers look for."""

    def __init__(self, config):
        self.config, self.control, self.counters = config, Control(config), Counters(config)
        flat = {}
        for names, flow in ((DRIVEN, In), (ANSWERED, Out)):
            for channel, leaf in names:
                width = len(getattr(getattr(self.control.axi, channel), leaf))
                flat[f"control_{channel}{leaf}"] = flow(width)
        super().__init__(
            {name: In(width) for name, width in (STATE | {"occupied": len(Queue)}).items()}
            | {name: Out(width) for name, width in SHOWN.items()}
            | {name: self.counters.signature.members[name] for name in EVENTS}
            | flat
        )

    def elaborate(self, platform):
        m = Module()
        m.submodules.control, m.submodules.counters = control, counters = (
            self.control, self.counters,
        )  # fmt: skip
        wiring.connect(m, control.counters, counters.readout)
        for name in EVENTS:
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(counters, name))
        for channel, leaf in DRIVEN:
            driver = getattr(self, f"control_{channel}{leaf}")
            m.d.comb += getattr(getattr(control.axi, channel), leaf).eq(driver)
        for channel, leaf in ANSWERED:
            answer = getattr(getattr(control.axi, channel), leaf)
            m.d.comb += getattr(self, f"control_{channel}{leaf}").eq(answer)
        m.d.comb += [getattr(control, name).eq(getattr(self, name)) for name in STATE]
        m.d.comb += [getattr(self, name).eq(getattr(control, name)) for name in SHOWN]
        m.d.comb += [
            counters.clear.eq(control.start),
            counters.count.eq(control.count),
            counters.occupied.eq(self.occupied),
        ]
        return m


def config_of(entries):
    return HardwareConfig("test", counter_entries=entries)


@cache
def built(config):
    return runner.build(Bench(config), "control_bench")


def bench(testcase, folder, entries=41, stall=False, **parameters):
    config = config_of(entries)
    build = built(config)
    inputs = [port.name for port in runner.emit(Bench(config), "control_bench").ports
              if port.direction == "input" and not port.name.startswith("control")]  # fmt: skip
    parameters |= {
        "map": register_map(config).to_json(), "seed": 3, "stall": stall, "entries": entries,
        "inputs": [name for name in inputs if name not in ("clk", "rst")],
    }  # fmt: skip
    path = folder / "parameters.json"
    path.write_text(json.dumps(parameters))
    runner.run(build, BENCH, testcase, env={"PARAMETERS": str(path)})


@pytest.mark.parametrize("stall", [False, True])
def test_registers(stall, tmp_path):
    bench("registers", tmp_path, stall=stall)


@pytest.mark.parametrize("stall", [False, True])
def test_end_of_a_program(stall, tmp_path):
    bench("end_of_a_program", tmp_path, stall=stall)


def random_run(rng, entries, cycles, counters):
    """Events of each cycle, also counted by the simulator's counters; and busy cycles."""
    counters.reset()
    events, busy = [], [0] * len(Queue)
    sources = rng.integers(entries, size=3)  # few, so that events of one index follow each other
    for _ in range(cycles):
        event = {}
        occupied = int(rng.integers(1 << len(Queue)))
        busy = [total + (occupied >> i & 1) for i, total in enumerate(busy)]
        event["occupied"] = occupied
        for unit in ("load", "store"):
            if rng.random() < 0.3:
                kind, size = int(rng.integers(len(Traffic))), int(rng.integers(1 << 32))
                counters.move(kind, size)
                event |= {f"{unit}_moved__valid": 1, f"{unit}_moved__kind": kind,
                          f"{unit}_moved__bytes": size}  # fmt: skip
        if rng.random() < 0.3:
            size = int(rng.integers(1 << 32))
            counters.traffic["near_data"] += size
            event |= {"engine_moved__valid": 1, "engine_moved__bytes": size}
        if rng.random() < 0.8:
            source, lanes = int(rng.choice(sources)), int(rng.integers(1, N + 1))
            sent = np.rint(rng.normal(0, 3, (1, 1, N))).astype(int)
            clipped = rng.random((1, 1, N)) < 0.2
            counters.deltas(source, sent, clipped, lanes)
            valid = sent[0, 0, :lanes]
            half = 1 << INLIER_BITS - 1
            outlier = int(((valid < -half) | (valid >= half)).sum())
            zero = int((valid == 0).sum())
            event |= {
                "deltas__valid": 1, "deltas__index": source, "deltas__zero": zero,
                "deltas__inlier": lanes - zero - outlier, "deltas__outlier": outlier,
                "deltas__clipped": int(clipped[0, 0, :lanes].sum()), "deltas__elements": lanes,
            }  # fmt: skip
        if rng.random() < 0.5:
            source, count = int(rng.choice(sources)), int(rng.integers(1 << 16))
            counters.segment_changes(source, count)
            event |= {"segment_changes__valid": 1, "segment_changes__index": source,
                      "segment_changes__count": count}  # fmt: skip
        for unit, limit in (("vector", 1 << 8), ("engine", 1 << 16)):
            if rng.random() < 0.5:
                stream, count = int(rng.choice(sources)), int(rng.integers(limit))
                counters.saturations(stream, count)
                event |= {f"{unit}_saturated__valid": 1, f"{unit}_saturated__index": stream,
                          f"{unit}_saturated__count": count}  # fmt: skip
        if rng.random() < 0.1:  # an index past the entries counts nowhere
            name = str(rng.choice(EVENTS[3:]))
            field = "elements" if name == "deltas" else "count"
            past = int(rng.integers(64, 1 << 12))
            events.append({f"{name}__valid": 1, f"{name}__index": past, f"{name}__{field}": 5})
        events.append(event)
    return events, busy


@pytest.mark.parametrize("entries", [2, 41, 64])
def test_counters_equal_those_of_the_simulator(entries, tmp_path):
    rng = np.random.default_rng(entries)
    names = [f"{i:03d}" for i in range(entries)]
    runs, expected = [], []
    for _ in range(2):
        counters = SimulatedCounters(names, names, INLIER_BITS)
        events, busy = random_run(rng, entries, 300, counters)
        count = int(rng.integers(1 << 20))
        counters.traffic["instructions"] += count * INSTRUCTION_BYTES
        runs.append({"events": events, "count": count})
        expected.append((counters.result(), counters.traffic, busy))
    results = tmp_path / "results.json"
    bench("counts", tmp_path, entries=entries, runs=runs, results=str(results))
    for found, (named, traffic, busy) in zip(
        json.loads(results.read_text()), expected, strict=True
    ):
        assert [found[f"BUSY_{queue.name}"] for queue in Queue] == busy
        assert {kind: found[f"TRAFFIC_{kind.upper()}"] for kind in traffic} == traffic
        assert dict(zip(names, found["streams"], strict=True)) == named.pop("streams")
        assert {
            name: dict(zip(KEYS, row, strict=False))
            for name, row in zip(names, found["sources"], strict=True)
            if row[-1]
        } == named


@pytest.mark.parametrize("entries", [1, 2, 41, 256, 4096])
def test_the_register_map_has_no_overlaps(entries):
    made = register_map(config_of(entries))
    ends = 0
    for register in made.registers:
        assert register.offset >= ends and register.offset % 4 == 0
        ends = register.offset + 4 * register.words
    for window in (made.streams, made.sources):
        size = window.entries * window.stride
        assert window.entries >= entries and window.offset >= ends and not window.offset % size
        assert 4 * len(window.columns) <= window.stride
        ends = window.offset + size
    assert ends <= 1 << made.address_bits < 2 * ends
