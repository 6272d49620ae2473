"""The memory model: contents, timing without stalls, order under stalls, refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, connect, flipped

from signmask.hw.axi import AxiRead, AxiWrite
from signmask.hw.errors import RtlError
from signmask.hw.simulation import memory, runner

BENCH = Path(__file__).parent / "memory_bench.py"
SIZE = 1 << 16


class Ports(wiring.Component):
    """The two kinds of ports, driven by the test."""

    def __init__(self, data_bytes):
        self.data_bytes = data_bytes
        super().__init__({"read": In(AxiRead(data_bytes)), "write": In(AxiWrite(data_bytes))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.read = read = memory.ReadMemory(1, self.data_bytes)
        m.submodules.write = write = memory.WriteMemory(2, self.data_bytes)
        connect(m, flipped(self.read), read.port)
        connect(m, flipped(self.write), write.port)
        return m


def simulate(case, data_bytes, latency=1, stalls=False, seed=0, always=False, address=0):
    file = memory.MemoryFile(SIZE)
    file.data[:] = np.random.default_rng(seed).integers(0, 256, SIZE, np.uint8)
    parameters = {
        "bytes": data_bytes, "latency": latency, "size": SIZE, "memory": str(file.path),
        "seed": seed, "always_ready": always, "timed": not stalls and always, "address": address,
    }  # fmt: skip
    plusargs = memory.plusargs(7, {1: latency, 2: latency}, seed if stalls else None)
    try:
        runner.run(
            runner.build(Ports(data_bytes), "memory_ports"), BENCH, case,
            env={"PARAMETERS": json.dumps(parameters)}, plusargs=[file.plusarg, *plusargs],
        )  # fmt: skip
    finally:
        file.close()


@pytest.mark.parametrize("case", ["reads", "writes"])
@pytest.mark.parametrize(("data_bytes", "latency"), [(16, 1), (16, 37), (64, 5)])
def test_timing(case, data_bytes, latency):
    simulate(case, data_bytes, latency, always=True)


@pytest.mark.parametrize("case", ["reads", "writes"])
@pytest.mark.parametrize("seed", [1, 2])
def test_stalls(case, seed):
    simulate(case, 16, 5, stalls=True, seed=seed)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (8, "read of 64 bytes at address 8 by memory port 1 is not aligned to its beats"),
        (4096 - 16, "crosses a boundary of 4096 bytes"),
        (SIZE, f"is outside the memory of {SIZE} bytes"),
    ],
)
def test_refusals(address, sentence):
    with pytest.raises(RtlError, match=sentence):
        simulate("request", 16, address=address)


def test_dropped_request():
    with pytest.raises(RtlError, match="AR changed or lost its valid"):
        for seed in range(9):
            simulate("request", 16, stalls=True, seed=seed)


def test_too_wide_beat():
    with pytest.raises(RtlError, match="512 bytes per beat"):
        memory.checked(512)
