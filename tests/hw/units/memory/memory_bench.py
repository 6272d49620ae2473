"""cocotb master of the memory model's two ports."""

import json
import os
from collections import deque

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

PARAMETERS = json.loads(os.environ["PARAMETERS"])
BYTES, LATENCY = PARAMETERS["bytes"], PARAMETERS["latency"]
SIZE = PARAMETERS["size"]


async def start(dut):
    Clock(dut.clk, 1, unit="ns", impl="gpi").start()
    for name in ("read__ar__valid", "read__r__ready", "write__aw__valid", "write__w__valid"):
        getattr(dut, name).value = 0
    dut.write__b__ready.value = 1
    dut.rst.value = 1
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    dut.rst.value = 0


def random_burst(rng):
    """Address and beats within 4 KiB."""
    beats = min(int(rng.choice([1, 2, 5, 16, 256])), 4096 // BYTES)
    page = int(rng.integers(SIZE // 4096)) * 4096
    return page + int(rng.integers(4096 // BYTES - beats + 1)) * BYTES, beats


@cocotb.test()
async def reads(dut):
    """Data of random bursts; without stalls, the cycle of every beat."""
    rng = np.random.default_rng(PARAMETERS["seed"])
    memory = np.memmap(PARAMETERS["memory"], np.uint8, "r")
    await start(dut)
    bursts = [random_burst(rng) for _ in range(60)]
    waiting, expected = deque(bursts), deque()
    free, now, always = 0, 0, PARAMETERS["always_ready"]
    valid = False
    while waiting or expected:
        valid = valid or bool(waiting and (always or rng.random() < 0.5))
        dut.read__ar__valid.value = valid
        if waiting:
            dut.read__ar__addr.value, dut.read__ar__len.value = waiting[0][0], waiting[0][1] - 1
        ready = always or bool(rng.random() < 0.6)
        dut.read__r__ready.value = ready
        await RisingEdge(dut.clk)
        if valid and dut.read__ar__ready.value:
            address, beats = waiting.popleft()
            free = max(free, now + LATENCY)
            for beat in range(beats):
                expected.append((address + beat * BYTES, beat + 1 == beats, free + beat))
            free += beats
            valid = False
        if dut.read__r__valid.value and ready:
            at, last, when = expected.popleft()
            assert int(dut.read__r__data.value).to_bytes(BYTES, "little") == bytes(
                memory[at : at + BYTES]
            )
            assert int(dut.read__r__last.value) == last
            if PARAMETERS["timed"]:
                assert now == when
        elif PARAMETERS["timed"] and expected:
            assert now < expected[0][2]
        now += 1


@cocotb.test()
async def writes(dut):
    """Bursts with random strobes; every response at its time; data follow the address or come
    with it."""
    rng = np.random.default_rng(PARAMETERS["seed"])
    memory = np.memmap(PARAMETERS["memory"], np.uint8, "r")
    expected = memory.copy()
    await start(dut)
    now, requests, beats, due = 0, deque(), deque(), deque()
    for _ in range(40):
        address, count = random_burst(rng)
        requests.append((address, count))
        for beat in range(count):
            data = rng.integers(0, 256, BYTES, np.uint8)
            strobes = rng.integers(0, 2, BYTES).astype(bool)
            beats.append((data, strobes, beat + 1 == count, len(requests)))
            at = address + beat * BYTES
            expected[at : at + BYTES][strobes] = data[strobes]
    sent = answered = 0
    while answered < 40:
        # All at once, or each when its data are next: then either may be accepted first.
        address_valid = bool(requests) and (
            PARAMETERS["always_ready"] or bool(beats and beats[0][3] > sent)
        )
        data_valid = bool(beats) and beats[0][3] <= sent + address_valid
        dut.write__aw__valid.value = address_valid
        dut.write__w__valid.value = data_valid
        if requests:
            dut.write__aw__addr.value = requests[0][0]
            dut.write__aw__len.value = requests[0][1] - 1
        if beats:
            data, strobes, last, _ = beats[0]
            dut.write__w__data.value = int.from_bytes(data.tobytes(), "little")
            dut.write__w__strb.value = sum(1 << i for i in np.flatnonzero(strobes).tolist())
            dut.write__w__last.value = last
        await RisingEdge(dut.clk)
        accepted = address_valid and bool(dut.write__aw__ready.value)
        if data_valid and dut.write__w__ready.value and beats.popleft()[2]:
            due.append(now + LATENCY)
        if accepted:
            requests.popleft()
            sent += 1
        if dut.write__b__valid.value:
            when = due.popleft()
            answered += 1
            assert now == when if PARAMETERS["timed"] else now >= when
        elif PARAMETERS["timed"] and due:
            assert now < due[0]
        now += 1
    assert np.array_equal(memory, expected)


@cocotb.test()
async def request(dut):
    """One request, which the memory refuses, or whose valid is dropped."""
    await start(dut)
    dut.read__ar__addr.value, dut.read__ar__len.value = PARAMETERS["address"], 3
    for valid in (0, 1, 0, 1, 0):
        dut.read__ar__valid.value = valid
        await RisingEdge(dut.clk)
