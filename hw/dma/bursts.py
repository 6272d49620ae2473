"""Cuts the beats of an area into AXI bursts."""

from __future__ import annotations

from amaranth import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.axi import ADDRESS_BITS, BOUNDARY_BYTES, MAX_BEATS, AxiRequest
from signmask.hw.fetch import bus_bytes
from signmask.hw.spec.config import HardwareConfig

SIZE_BITS = 32  # bytes of an area; one bit less than its beats need on a bus of one byte


def block_beats(data_bytes: int) -> int:
    """Beats of the aligned blocks of memory that no burst crosses."""
    return min(MAX_BEATS, BOUNDARY_BYTES // data_bytes)


class Bursts(wiring.Component):
    """Requests for areas, one burst per cycle, cut at multiples of `block_beats`.

    `start` takes an area of `beats` beats (0: none) from the beat that holds byte `address`; it may
    come while `idle`: no request is left behind this cycle. The first request shows in the cycle
    after `start`. `issued` pulses with every accepted request.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self.data_bytes = bus_bytes(config)
        super().__init__(
            {
                "start": In(1), "address": In(ADDRESS_BITS), "beats": In(SIZE_BITS),
                "idle": Out(1), "issued": Out(1), "request": Out(AxiRequest()),
            }
        )  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        """A beat number and the beats that are left."""
        m = Module()
        low = (self.data_bytes - 1).bit_length()
        block = block_beats(self.data_bytes)
        at, left = Signal(ADDRESS_BITS - low), Signal(SIZE_BITS)
        room, count = Signal(range(block + 1)), Signal(range(block + 1))
        request = self.request
        m.d.comb += [
            room.eq(block - at[: (block - 1).bit_length()]),
            count.eq(Mux(left < room, left, room)),
            request.valid.eq(left != 0),
            request.addr[low:].eq(at),
            request.len.eq(count - 1),
            self.issued.eq(request.valid & request.ready),
            self.idle.eq((left == 0) | self.issued & (left <= room)),
        ]
        with m.If(self.issued):
            m.d.sync += [at.eq(at + count), left.eq(left - count)]
        with m.If(self.start):
            m.d.sync += [at.eq(self.address[low:]), left.eq(self.beats)]
        return m
