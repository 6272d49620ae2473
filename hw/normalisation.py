"""Normalisation unit: group statistics to the constants A and B of every channel."""

from __future__ import annotations

from amaranth import Module, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from signmask.hw.ports import ReadPort, WritePort, address_bits
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import MAX_PARTS

ENTRY_BITS = 48  # of a parameter entry
TREND_GROUPS = 64  # most groups of a trend normalisation


class NormalisationUnit(wiring.Component):
    """Constants A, B of `numerics.channel_constants` for all channels of up to four parts.

    `start` (one cycle, while not `busy`) begins a run, `done` pulses in its last cycle d, by which
    all writes have been presented: d + 1 - s = `timing.normalisation(...)`. `busy` is high from
    s + 1 to d. All other inputs are held from start to done.

    Ports: word addresses of a memory of `depth` parameter words (n signed 48-bit entries).
    Reads (part i, plane q of the part, plane p of the concatenation, image m):
      sums_i + 2*(q*images + m): sums, and squares in the next word;
      gain + p, offset + p;
      with `trend`: mean_last, mean_now, inverse_now, sigma_last, each ceil(groups / n) words: entry
      g % n of word g // n belongs to group g (at most TREND_GROUPS groups).
    Writes: A to output + 2*(p*images + m) and B to the next word; with `gain_only`: A alone, to
    output + p*images + m. Entries of padding channels become 0. A part has ceil(channels / n)
    planes.

    Legal runs: images, parts, channels_i, groups, count, epsilon >= 1; groups divides the channels;
    the ranges that `sim.normalisation` checks.
    """

    def __init__(self, config: HardwareConfig, depth: int) -> None:
        self.config, self.depth = config, depth
        n, address = config.group, address_bits(depth)
        width = n * ENTRY_BITS
        members: dict[str, wiring.Member] = {
            "start": In(1), "busy": Out(1), "done": Out(1),
            "images": In(8), "parts": In(3), "groups": In(16), "count": In(32), "epsilon": In(48),
            "gain_shift": In(6), "mean_shift": In(signed(7)), "trend": In(1), "gain_only": In(1),
        }  # fmt: skip
        for part in range(MAX_PARTS):
            members |= {f"channels_{part}": In(16), f"sums_{part}": In(address)}
        for table in "gain offset output mean_last mean_now inverse_now sigma_last".split():
            members[table] = In(address)
        for port in range(3):
            members[f"read_{port}"] = Out(ReadPort(depth, width))
        for port in range(2):
            members[f"write_{port}"] = Out(WritePort(depth, width, n))
        super().__init__(members)

    def elaborate(self, platform: object) -> Module:
        """The pipeline."""
        return Module()
