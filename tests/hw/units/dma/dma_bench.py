"""cocotb side of the tests of the load and store units: offers instructions, records cycles.

The instructions come in a JSON file (environment CASE), the results go to another beside it.
"""

import json
import os
import random
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiRamRead, AxiRamWrite, AxiReadBus, AxiWriteBus

CASE = Path(os.environ["CASE"])
LIMIT = 200_000


def slave(dut, axi):
    """cocotbext-axi's memory at the port `axi`, of the content of a file, with random pauses."""
    path = Path(axi["memory"])
    arguments = {"size": path.stat().st_size, "reset": dut.rst, "clock": dut.clk}
    if axi["write"]:
        ram = AxiRamWrite(AxiWriteBus.from_prefix(dut, "axi"), **arguments)
        channels = (ram.aw_channel, ram.w_channel, ram.b_channel)
    else:
        ram = AxiRamRead(AxiReadBus.from_prefix(dut, "axi"), **arguments)
        channels = (ram.ar_channel, ram.r_channel)
    ram.write(0, path.read_bytes())
    for seed, channel in enumerate(channels):
        channel.set_pause_generator(pauses(seed))
    return ram


def pauses(seed):
    """Random pauses of a channel."""
    chance = random.Random(seed)
    while True:
        yield chance.random() < 0.3


@cocotb.test()
async def runs(dut):
    case = json.loads(CASE.read_text())
    words = [int(word, 16) for word in case["words"]]
    gaps = case["gaps"]
    pads = {name: {} for name in case["writes"]}
    reads = {name: [int(v, 16) for v in values] for name, values in case["reads"].items()}
    Clock(dut.clk, 1, unit="ns", impl="gpi").start()
    dut.rst.value = 1
    dut.instruction__valid.value = 0
    for name, value in case["inputs"].items():
        getattr(dut, name).value = value
    for _ in range(3):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    ram = slave(dut, case["axi"]) if "axi" in case else None
    starts, dones, moved = [], [], []
    offered, wait, cycle = False, gaps[0], 0
    answers = {}
    while len(dones) < len(words):
        if not offered and len(starts) < len(words):
            if wait == 0:
                dut.instruction__valid.value = 1
                dut.instruction__payload.value = words[len(starts)]
                offered = True
            else:
                wait -= 1
        for name, value in answers.items():
            getattr(dut, name).value = value
        answers = {}
        await RisingEdge(dut.clk)
        if offered and int(dut.instruction__ready.value):
            starts.append(cycle)
            dut.instruction__valid.value = 0
            dut.instruction__payload.value = 0
            offered = False
            wait = gaps[len(starts)] if len(starts) < len(words) else 0
        if int(dut.done.value):
            dones.append(cycle)
        if int(dut.moved__valid.value):
            moved.append((int(dut.moved__kind.value), int(dut.moved__bytes.value)))
        for name, pad in pads.items():
            if int(getattr(dut, f"{name}__en").value):
                at = int(getattr(dut, f"{name}__addr").value)
                lanes = int(getattr(dut, f"{name}__lanes").value)
                data = int(getattr(dut, f"{name}__data").value)
                width, count = case["writes"][name]
                full = 0
                for lane in range(count):
                    if lanes >> lane & 1:
                        full |= (1 << width) - 1 << lane * width
                pad[at] = pad.get(at, 0) & ~full | data & full
        for name, values in reads.items():
            if int(getattr(dut, f"{name}__en").value):
                answers[f"{name}__data"] = values[int(getattr(dut, f"{name}__addr").value)]
        cycle += 1
        assert cycle < LIMIT, f"{len(starts)} started, {len(dones)} done"
    result = {
        "starts": starts, "dones": dones, "moved": moved,
        "pads": {name: {at: hex(v) for at, v in pad.items()} for name, pad in pads.items()},
    }  # fmt: skip
    if ram is not None:
        path = Path(case["axi"]["memory"])
        path.write_bytes(ram.read(0, path.stat().st_size))
    CASE.with_suffix(".result").write_text(json.dumps(result))
