"""AXI4 channels of the memory ports, as a master sees them.

Every transfer is an incrementing burst of full-width beats with ID 0: the constant members of AXI4
(size, burst, id, lock, cache, prot) are added where the ports leave the design. Addresses are
multiples of the data width; a burst has at most 256 beats and stays within 4 KiB.
"""

from __future__ import annotations

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

ADDRESS_BITS = 40
LENGTH_BITS = 8
BOUNDARY_BYTES = 4096
MAX_BEATS = 1 << LENGTH_BITS
MAX_BEAT_BYTES = 128
INCREMENT = 1  # burst type
MODIFIABLE = 0b0011  # normal, bufferable memory, not cached


class AxiRequest(wiring.Signature):
    """AR or AW: `len` is the number of beats less one."""

    def __init__(self) -> None:
        super().__init__(
            {
                "valid": Out(1), "ready": In(1),
                "addr": Out(ADDRESS_BITS), "len": Out(LENGTH_BITS),
            }
        )  # fmt: skip


class AxiReadData(wiring.Signature):
    """R, as the master sees it."""

    def __init__(self, data_bytes: int) -> None:
        super().__init__(
            {"valid": In(1), "ready": Out(1), "data": In(8 * data_bytes), "last": In(1)}
        )


class AxiWriteData(wiring.Signature):
    """W: `strb` has one bit per byte."""

    def __init__(self, data_bytes: int) -> None:
        super().__init__(
            {
                "valid": Out(1), "ready": In(1), "data": Out(8 * data_bytes),
                "strb": Out(data_bytes), "last": Out(1),
            }
        )  # fmt: skip


class AxiRead(wiring.Signature):
    """Read half of an AXI4 port."""

    def __init__(self, data_bytes: int) -> None:
        self.data_bytes = data_bytes
        super().__init__({"ar": Out(AxiRequest()), "r": Out(AxiReadData(data_bytes))})


class AxiWrite(wiring.Signature):
    """Write half of an AXI4 port."""

    def __init__(self, data_bytes: int) -> None:
        self.data_bytes = data_bytes
        super().__init__(
            {
                "aw": Out(AxiRequest()),
                "w": Out(AxiWriteData(data_bytes)),
                "b": Out(wiring.Signature({"valid": In(1), "ready": Out(1)})),
            }
        )


def standard_read(name: str, data_bytes: int) -> dict[str, wiring.Member]:
    """Members of the read half of an AXI4 port under the standard names, as the master sees it."""
    return {
        f"{name}_arid": Out(1), f"{name}_araddr": Out(ADDRESS_BITS),
        f"{name}_arlen": Out(LENGTH_BITS), f"{name}_arsize": Out(3), f"{name}_arburst": Out(2),
        f"{name}_arlock": Out(1), f"{name}_arcache": Out(4), f"{name}_arprot": Out(3),
        f"{name}_arvalid": Out(1), f"{name}_arready": In(1),
        f"{name}_rid": In(1), f"{name}_rdata": In(8 * data_bytes), f"{name}_rresp": In(2),
        f"{name}_rlast": In(1), f"{name}_rvalid": In(1), f"{name}_rready": Out(1),
    }  # fmt: skip


def standard_write(name: str, data_bytes: int) -> dict[str, wiring.Member]:
    """Members of the write half of an AXI4 port under the standard names."""
    return {
        f"{name}_awid": Out(1), f"{name}_awaddr": Out(ADDRESS_BITS),
        f"{name}_awlen": Out(LENGTH_BITS), f"{name}_awsize": Out(3), f"{name}_awburst": Out(2),
        f"{name}_awlock": Out(1), f"{name}_awcache": Out(4), f"{name}_awprot": Out(3),
        f"{name}_awvalid": Out(1), f"{name}_awready": In(1),
        f"{name}_wdata": Out(8 * data_bytes), f"{name}_wstrb": Out(data_bytes),
        f"{name}_wlast": Out(1), f"{name}_wvalid": Out(1), f"{name}_wready": In(1),
        f"{name}_bid": In(1), f"{name}_bresp": In(2), f"{name}_bvalid": In(1),
        f"{name}_bready": Out(1),
    }  # fmt: skip


def drive_read(m: Module, outer: wiring.Component, name: str, port: wiring.PureInterface) -> None:
    """Connect a master's AxiRead `port` to the standard members `name_*` of `outer`."""
    _drive_request(m, outer, f"{name}_ar", port.ar, len(port.r.data) // 8)
    m.d.comb += [
        port.r.valid.eq(getattr(outer, f"{name}_rvalid")),
        port.r.data.eq(getattr(outer, f"{name}_rdata")),
        port.r.last.eq(getattr(outer, f"{name}_rlast")),
        getattr(outer, f"{name}_rready").eq(port.r.ready),
    ]


def drive_write(m: Module, outer: wiring.Component, name: str, port: wiring.PureInterface) -> None:
    """Connect a master's AxiWrite `port` to the standard members `name_*` of `outer`."""
    _drive_request(m, outer, f"{name}_aw", port.aw, len(port.w.data) // 8)
    for member in ("data", "strb", "last", "valid"):
        m.d.comb += getattr(outer, f"{name}_w{member}").eq(getattr(port.w, member))
    m.d.comb += [
        port.w.ready.eq(getattr(outer, f"{name}_wready")),
        port.b.valid.eq(getattr(outer, f"{name}_bvalid")),
        getattr(outer, f"{name}_bready").eq(port.b.ready),
    ]


def _drive_request(
    m: Module, outer: wiring.Component, prefix: str, request: wiring.PureInterface, size: int
) -> None:
    """Address channel, with the constant members: whole beats, incrementing, modifiable."""
    constants = {
        "id": 0, "size": size.bit_length() - 1, "burst": INCREMENT, "lock": 0,
        "cache": MODIFIABLE, "prot": 0,
    }  # fmt: skip
    for member in ("addr", "len", "valid"):
        m.d.comb += getattr(outer, prefix + member).eq(getattr(request, member))
    for member, value in constants.items():
        m.d.comb += getattr(outer, prefix + member).eq(value)
    m.d.comb += request.ready.eq(getattr(outer, f"{prefix}ready"))
