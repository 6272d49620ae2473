"""AXI4 channels of the memory ports, as a master sees them.

Every transfer is an incrementing burst of full-width beats with ID 0: the constant members of AXI4
(size, burst, id, lock, cache, prot) are added where the ports leave the design. Addresses are
multiples of the data width; a burst has at most 256 beats and stays within 4 KiB.
"""

from __future__ import annotations

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

ADDRESS_BITS = 40
LENGTH_BITS = 8
BOUNDARY_BYTES = 4096
MAX_BEATS = 1 << LENGTH_BITS


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
