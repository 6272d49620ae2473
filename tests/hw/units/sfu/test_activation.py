"""Activation and group encoder lane by lane against the scalar definitions, with random stalls.

Amaranth's own simulator is enough here: the same blocks run on Verilator inside the vector unit.
"""

import itertools
import random
from dataclasses import replace

import pytest
from amaranth.sim import Simulator

from signmask.hw.activation import MaskedActivation, RawActivation
from signmask.hw.group_encoder import GroupEncoder
from signmask.hw.spec import numerics
from signmask.hw.spec.config import NANO
from signmask.hw.spec.isa import LOOPS

N, WORDS = 8, 40
CONFIG = replace(NANO, group=N, columns=N)


def pack(values, bits):
    return sum((value & (1 << bits) - 1) << i * bits for i, value in enumerate(values))


def unpack(word, bits, signed=True):
    values = [word >> i * bits & (1 << bits) - 1 for i in range(N)]
    return [v - (1 << bits) if signed and v >> bits - 1 else v for v in values]


class Source(random.Random):
    def wide(self, bits):
        """A signed number of any magnitude up to `bits` bits, often an extreme one."""
        top = (1 << self.randint(1, bits) - 1) - 1
        return self.choice([self.randint(-top - 1, top), top, -top - 1])

    def lanes(self, bits):
        return [self.wide(bits) for _ in range(N)]


def outputs(device, static, words, names, source):
    """What `device` gives for each of `words` (values by port), presented with random stalls."""
    found = []

    async def bench(ctx):
        for port, value in static.items():
            ctx.set(getattr(device, port), value)
        presented = iter(itertools.chain(words, itertools.repeat(words[-1])))
        taken = 0
        while len(found) < len(words):
            en = source.random() < 0.7
            ctx.set(device.en, en)
            if en:
                for port, value in next(presented).items():
                    ctx.set(getattr(device, port), value)
            await ctx.tick()
            taken += en
            if en and taken >= device.LATENCY:
                found.append([ctx.get(getattr(device, name)) for name in names])

    simulator = Simulator(device)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found


@pytest.mark.parametrize("seed", range(4))
def test_raw_activation(seed):
    source = Source(seed)
    z_shift, code_shift = source.choice([0, 1, 18, 30, 63]), source.choice([0, 14, 40, 63])
    used = source.randint(0, 7)
    breaks = sorted(source.wide(24) for _ in range(used)) + [1 << 40] * (7 - used)
    slopes, intercepts = source.lanes(24), source.lanes(48)
    low, high = source.choice([(-128, 127), (0, 100), (-5, 60)])
    words = [(source.lanes(32), source.lanes(24), source.lanes(48)) for _ in range(WORDS)]
    static = dict(
        z_shift=z_shift, code_shift=code_shift, low=low, high=high, breaks=pack(breaks, 48),
        slopes=pack(slopes, 48), intercepts=pack(intercepts, 48),
    )  # fmt: skip
    given = [dict(y=pack(y, 32), a=pack(a, 48), b=pack(b, 48)) for y, a, b in words]
    device = RawActivation(CONFIG)
    found = outputs(device, static, given, ("code", "segment"), source)
    for word, (code, segment) in zip(words, found, strict=True):
        z = [numerics.pre_activation(y, a, b, z_shift) for y, a, b in zip(*word, strict=True)]
        want = [numerics.segment_index(v, breaks) for v in z]
        assert unpack(segment, 3, signed=False) == want
        assert unpack(code, 16) == [
            numerics.activation_code(v, slopes[s], intercepts[s], code_shift, low, high)
            for v, s in zip(z, want, strict=True)
        ]


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("seed", range(2))
def test_masked_activation(loop, seed):
    source = Source(seed)
    carry = source.choice([0, 1, 8, 15])
    z_shift, code_shift = source.choice([0, 5, 18, 30]), source.choice([15, 20, 40, 63])
    slopes = source.lanes(24)
    words = [
        (source.lanes(32), source.lanes(24), [source.randint(0, 7) for _ in range(N)],
         source.lanes(16))
        for _ in range(WORDS)
    ]  # fmt: skip
    static = dict(
        z_shift=z_shift, code_shift=code_shift, loop=LOOPS.index(loop), carry_bits=carry,
        slopes=pack(slopes, 48),
    )  # fmt: skip
    given = [
        dict(dy=pack(dy, 32), gain=pack(gain, 48), segment=pack(segment, 3),
             correction=pack(correction, 16))
        for dy, gain, segment, correction in words
    ]  # fmt: skip
    found = outputs(MaskedActivation(CONFIG), static, given, ("delta", "residue"), source)
    for word, (delta, residue) in zip(words, found, strict=True):
        deltas, residues = [], []
        for dy, gain, segment, correction in zip(*word, strict=True):
            dz = numerics.pre_activation(dy, gain, 0, z_shift)
            kept = carry if loop == "carry" else 0
            added = 0 if loop == "open" else correction
            exact = numerics.masked_delta(dz, slopes[segment], code_shift, added, kept)
            change = numerics.shift_round(exact, kept)
            deltas.append(numerics.saturate(change, numerics.DELTA_BITS))
            residues.append(exact - (change << kept))
        assert unpack(delta, 9) == deltas
        assert unpack(residue, 16) == residues


@pytest.mark.parametrize("inlier_bits", [3, 4, 5])
@pytest.mark.parametrize("full_lanes", [1, 2, 8])
def test_group_encoder(inlier_bits, full_lanes):
    source = Source(10 * inlier_bits + full_lanes)
    device = GroupEncoder(replace(CONFIG, inlier_bits=inlier_bits, full_lanes=full_lanes))
    words = [
        ([source.wide(source.choice([3, 4, 6, 9, 17])) for _ in range(N)], source.random() < 0.3)
        for _ in range(WORDS)
    ]
    given = [dict(deltas=pack(deltas, 17), spill=spill) for deltas, spill in words]
    found = outputs(device, {}, given, ("sent", "clipped", "outlier"), source)
    limit = 1 << inlier_bits - 1
    for (deltas, spill), (sent, clipped, outlier) in zip(words, found, strict=True):
        want = numerics.encode_group(deltas, inlier_bits, full_lanes, spill)
        narrow = [numerics.saturate(d, numerics.DELTA_BITS) for d in deltas]
        assert unpack(sent, 9) == want
        changed = [int(a != b) for a, b in zip(want, narrow, strict=True)]
        assert unpack(clipped, 1, signed=False) == changed
        wide = [int(not -limit <= v < limit) for v in want]
        assert unpack(outlier, 1, signed=False) == wide
