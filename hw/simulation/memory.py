"""Memory of a test bench: AXI4 slaves over a mapped file, and the file itself.

The simulation and Python map the same file, so that neither copies. Timing, random stalls and the
plusargs are described in `memory.cpp`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from amaranth import ClockSignal, Elaboratable, Instance, Module, ResetSignal
from amaranth.lib.wiring import PureInterface

from signmask.hw.axi import AxiRead, AxiWrite
from signmask.hw.errors import RtlError

FOLDER = Path(__file__).parent
SOURCES = (FOLDER / "memory.sv", FOLDER / "memory.cpp")
LARGEST_BEAT = 256


class ReadMemory(Elaboratable):
    """Slave of a read port; `port` is to be connected to the master's, `index` names it."""

    sources = SOURCES

    def __init__(self, index: int, data_bytes: int) -> None:
        self.index, self.data_bytes = index, checked(data_bytes)
        self.port: PureInterface = AxiRead(data_bytes).flip().create(path=(f"read_{index}",))

    def elaborate(self, platform: object) -> Module:
        """The instance of Verilog."""
        m = Module()
        ar, r = self.port.ar, self.port.r
        m.submodules.memory = Instance(
            "signmask_read_memory",
            p_INDEX=self.index, p_BYTES=self.data_bytes,
            i_clk=ClockSignal(), i_rst=ResetSignal(),
            i_arvalid=ar.valid, o_arready=ar.ready, i_araddr=ar.addr, i_arlen=ar.len,
            o_rvalid=r.valid, i_rready=r.ready, o_rdata=r.data, o_rlast=r.last,
        )  # fmt: skip
        return m


class WriteMemory(Elaboratable):
    """Slave of a write port; `port` is to be connected to the master's, `index` names it."""

    sources = SOURCES

    def __init__(self, index: int, data_bytes: int) -> None:
        self.index, self.data_bytes = index, checked(data_bytes)
        self.port: PureInterface = AxiWrite(data_bytes).flip().create(path=(f"write_{index}",))

    def elaborate(self, platform: object) -> Module:
        """The instance of Verilog."""
        m = Module()
        aw, w, b = self.port.aw, self.port.w, self.port.b
        m.submodules.memory = Instance(
            "signmask_write_memory",
            p_INDEX=self.index, p_BYTES=self.data_bytes,
            i_clk=ClockSignal(), i_rst=ResetSignal(),
            i_awvalid=aw.valid, o_awready=aw.ready, i_awaddr=aw.addr, i_awlen=aw.len,
            i_wvalid=w.valid, o_wready=w.ready, i_wdata=w.data, i_wstrb=w.strb, i_wlast=w.last,
            o_bvalid=b.valid, i_bready=b.ready,
        )  # fmt: skip
        return m


class MemoryFile:
    """`size` bytes shared with a simulation: `data` is their uint8 array, `plusarg` names them."""

    def __init__(self, size: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="signmask-memory-")
        self.path = Path(self._folder.name) / "memory"
        try:
            self.data = np.memmap(self.path, np.uint8, "w+", shape=(max(1, size),))
        except OSError as error:
            self._folder.cleanup()
            raise RtlError(
                f"cannot make a memory of {size} bytes in {self.path.parent}: {error.strerror}; "
                "set TMPDIR to a folder with room."
            ) from None
        self.plusarg = f"+memory={self.path}"

    def close(self) -> None:
        """Remove the file; `data` stays readable."""
        self._folder.cleanup()


def plusargs(
    latency: int,
    ports: dict[int, int] | None = None,
    stall_seed: int | None = None,
    stall_percent: int = 30,
) -> list[str]:
    """Latency in cycles, of all ports but those in `ports`; random stalls where a seed is given."""
    found = [f"+latency={latency}"]
    found += [f"+latency_{index}={cycles}" for index, cycles in (ports or {}).items()]
    if stall_seed is not None:
        found += [f"+stall_seed={stall_seed}", f"+stall_percent={stall_percent}"]
    return found


def checked(data_bytes: int) -> int:
    """`data_bytes`, which the memory model must be able to move; raises RtlError."""
    if not 1 <= data_bytes <= LARGEST_BEAT:
        raise RtlError(
            f"a memory port has {data_bytes} bytes per beat and the memory model moves at most "
            f"{LARGEST_BEAT}; simulate a smaller configuration."
        )
    return data_bytes
