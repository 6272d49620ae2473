"""cocotb test that serves the control port: executes lists of operations from a pipe.

One line of JSON holds a list of operations: ["write", offset, value], ["read", offset], ["wait"]
(for the interrupt). The answer is one line with the list of values read, or {"error": sentence}.
The end of the pipe ends the simulation. No Python runs while a program does.
"""

from __future__ import annotations

import json
import os
from typing import Any

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

COMMANDS, ANSWERS = "SIGNMASK_COMMANDS", "SIGNMASK_ANSWERS"  # descriptors of the pipes
RESET_CYCLES = 4


class ControlPort:
    """AXI4-Lite master: one transfer at a time."""

    def __init__(self, dut: Any) -> None:
        self.dut = dut
        for name in ("awvalid", "wvalid", "bready", "arvalid", "rready"):
            self._pin(name).value = 0

    def _pin(self, name: str) -> Any:
        return getattr(self.dut, f"control_{name}")

    async def _shown(self, valid: str, ready: str) -> None:
        """Raise `valid` until it was accepted."""
        self._pin(valid).value = 1
        while True:
            await RisingEdge(self.dut.clk)
            if self._pin(ready).value:
                break
        self._pin(valid).value = 0

    async def _answer(self, valid: str, ready: str, response: str) -> int:
        """Wait for the response; returns its code."""
        self._pin(ready).value = 1
        while True:
            await RisingEdge(self.dut.clk)
            if self._pin(valid).value:
                break
        self._pin(ready).value = 0
        return int(self._pin(response).value)

    async def write(self, offset: int, value: int) -> None:
        """Write a word; raises ValueError when the port answers with an error."""
        self._pin("awaddr").value = offset
        self._pin("wdata").value = value
        self._pin("wstrb").value = 15
        address = cocotb.start_soon(self._shown("awvalid", "awready"))
        data = cocotb.start_soon(self._shown("wvalid", "wready"))
        response = await self._answer("bvalid", "bready", "bresp")
        await address
        await data
        if response:
            raise ValueError(f"the control port refuses to write {value} at {offset:#x}.")

    async def read(self, offset: int) -> int:
        """Read a word; raises ValueError when the port answers with an error."""
        self._pin("araddr").value = offset
        await self._shown("arvalid", "arready")
        self._pin("rready").value = 1
        while True:
            await RisingEdge(self.dut.clk)
            if self._pin("rvalid").value:
                break
        value, response = int(self._pin("rdata").value), int(self._pin("rresp").value)
        self._pin("rready").value = 0
        if response:
            raise ValueError(f"the control port refuses to read at {offset:#x}.")
        return value


async def execute(dut: Any, port: ControlPort, operations: list[list[Any]]) -> list[int]:
    """Values of the reads, in order."""
    values = []
    for name, *arguments in operations:
        if name == "write":
            await port.write(*arguments)
        elif name == "read":
            values.append(await port.read(*arguments))
        elif name == "wait":
            if not dut.interrupt.value:
                await RisingEdge(dut.interrupt)
            await RisingEdge(dut.clk)
        else:
            raise ValueError(f"'{name}' is no operation.")
    return values


@cocotb.test()
async def serve(dut: Any) -> None:
    """Reset, then operations until the pipe ends."""
    port = ControlPort(dut)
    Clock(dut.clk, 1000, unit="ps", impl="gpi").start()
    dut.rst.value = 1
    for _ in range(RESET_CYCLES):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    with (
        os.fdopen(int(os.environ[COMMANDS]), encoding="ascii") as commands,
        os.fdopen(int(os.environ[ANSWERS]), "w", encoding="ascii") as answers,
    ):
        # The simulation stands still while this waits for a line.
        for line in commands:
            try:
                answer: Any = await execute(dut, port, json.loads(line))
            except ValueError as error:
                answer = {"error": str(error)}
            print(json.dumps(answer), file=answers, flush=True)
