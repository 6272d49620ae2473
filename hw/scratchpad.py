"""On-chip memories: an instance of `hw/verilog/signmask_sram.v` with named ports."""

from __future__ import annotations

from amaranth import Cat, ClockSignal, Elaboratable, Instance, Module, Signal
from amaranth.lib.wiring import PureInterface

from signmask.hw.ports import ReadPort, WritePort, address_bits


class Scratchpad(Elaboratable):
    """`depth` words of `width` bits in `lanes` separately written lanes.

    Units get their ports from `read_port` and `write_port`; each is independent of the others. In
    Amaranth's own simulator the memory is not modelled: it is an instance of Verilog.
    """

    def __init__(self, name: str, depth: int, width: int, lanes: int) -> None:
        self.name, self.depth, self.width, self.lanes = name, depth, width, lanes
        self.reads: list[PureInterface] = []
        self.writes: list[PureInterface] = []

    def read_port(self) -> PureInterface:
        """A new read port, as the memory sees it (to be connected to a unit's port)."""
        port = (
            ReadPort(self.depth, self.width)
            .flip()
            .create(path=(f"{self.name}_read_{len(self.reads)}",))
        )
        self.reads.append(port)
        return port

    def write_port(self) -> PureInterface:
        """A new write port, as the memory sees it."""
        port = (
            WritePort(self.depth, self.width, self.lanes)
            .flip()
            .create(path=(f"{self.name}_write_{len(self.writes)}",))
        )
        self.writes.append(port)
        return port

    def elaborate(self, platform: object) -> Module:
        """The instance, its ports concatenated."""
        m = Module()
        data = Signal(self.width * len(self.reads), name=f"{self.name}_read_data")
        m.submodules[self.name] = Instance(
            "signmask_sram",
            p_NAME=self.name, p_WIDTH=self.width, p_DEPTH=self.depth,
            p_ADDRESS=address_bits(self.depth),
            p_LANES=self.lanes, p_READS=len(self.reads), p_WRITES=len(self.writes),
            i_clk=ClockSignal(),
            i_read_en=Cat(port.en for port in self.reads),
            i_read_addr=Cat(port.addr for port in self.reads),
            o_read_data=data,
            i_write_en=Cat(port.en for port in self.writes),
            i_write_addr=Cat(port.addr for port in self.writes),
            i_write_data=Cat(port.data for port in self.writes),
            i_write_lanes=Cat(port.lanes for port in self.writes),
        )  # fmt: skip
        for i, port in enumerate(self.reads):
            m.d.comb += port.data.eq(data[i * self.width : (i + 1) * self.width])
        return m
