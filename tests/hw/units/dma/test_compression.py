"""Compressor and decompressor against the simulator's formats (Amaranth's simulator)."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from signmask.hw.compressor import Compressor
from signmask.hw.decompressor import Decompressor, FieldUnpacker
from signmask.hw.spec.config import NANO
from signmask.sim import compressor

FORMATS = [(k, wide) for k in (2, 3, 4, 7, 8, 11, 15) for wide in (2, 4)]


def words(rng, group, inlier_bits, wide_bytes, count=12):
    """Words with no, few and only outliers, at the edges of both ranges."""
    high = 1 << (inlier_bits - 1)
    limit = 1 << (8 * wide_bytes - 1)
    values = rng.integers(-high, high, (count, group))
    outlier = rng.random((count, group)) < rng.choice([0, 0.1, 0.5, 1.0], (count, 1))
    wide = np.where(
        rng.random((count, group)) < 0.5,
        rng.integers(-limit, limit, (count, group)),
        rng.choice([-limit, limit - 1, high, -high - 1, high - 1, -high], (count, group)),
    )
    return np.where(outlier, np.clip(wide, -limit, limit - 1), values)


def flat(values, bits):
    return sum((int(v) & (1 << bits) - 1) << bits * i for i, v in enumerate(values))


@pytest.mark.parametrize("group", [8, 16, 64])
def test_round_trip(group):
    config = replace(NANO, group=group, axi_bytes=64)
    packer, unpacker = Compressor(config), Decompressor(config)
    rng = np.random.default_rng(group)

    async def compress(ctx):
        ctx.set(packer.en, 1)
        for k, wide in FORMATS[:: 1 if group < 64 else 3]:
            values = words(rng, group, k, wide)
            ctx.set(packer.bits, k)
            ctx.set(packer.wide, wide == 4)
            got_area, got_list = b"", b""
            for index in range(len(values) + Compressor.LATENCY):
                if index >= Compressor.LATENCY:
                    size = ctx.get(packer.list_bytes)
                    assert size == ctx.get(packer.count) * wide
                    got_area += ctx.get(packer.area).to_bytes(group * 17 // 8, "little")[
                        : group * (1 + k) // 8
                    ]
                    got_list += ctx.get(packer.outliers).to_bytes(group * 4, "little")[:size]
                if index < len(values):
                    ctx.set(packer.values, flat(values[index], 32))
                await ctx.tick()
            area, outliers = compressor.compress(values, k, wide)
            assert got_area == area.tobytes()
            assert got_list == outliers.tobytes()

    async def decompress(ctx):
        ctx.set(unpacker.en, 1)
        for k, wide in FORMATS[:: 1 if group < 64 else 3]:
            values = words(rng, group, k, wide)
            ctx.set(unpacker.bits, k)
            ctx.set(unpacker.wide, wide == 4)
            area, outliers = (part.tobytes() for part in compressor.compress(values, k, wide))
            at, size = 0, group * (1 + k) // 8
            for index, value in enumerate(values):
                rubbish = int.from_bytes(rng.bytes(4), "little") << 8 * size
                part = int.from_bytes(area[index * size : (index + 1) * size], "little")
                ctx.set(unpacker.area, part | rubbish)
                ctx.set(unpacker.outliers, int.from_bytes(outliers[at : at + 4 * group], "little"))
                await ctx.delay(1e-9)
                assert ctx.get(unpacker.values) == flat(value, 32)
                at += ctx.get(unpacker.list_bytes)
            assert at == len(outliers)

    for component, bench in ((packer, compress), (unpacker, decompress)):
        simulator = Simulator(component)
        if component is packer:
            simulator.add_clock(1e-6)
        simulator.add_testbench(bench)
        simulator.run()


def test_fields():
    unpacker, rng = FieldUnpacker(NANO), np.random.default_rng(0)

    async def bench(ctx):
        for bits in range(17):
            values = rng.integers(0, 1 << bits, 16)
            ctx.set(unpacker.bits, bits)
            ctx.set(unpacker.packed, flat(values, bits))
            for signed in (0, 1):
                ctx.set(unpacker.signed, signed)
                ctx.set(unpacker.en, 1)
                await ctx.delay(1e-9)
                half = (1 << bits) // 2
                want = (values + half) % (1 << bits) - half if signed and bits else values
                assert ctx.get(unpacker.values) == flat(want, 16)
                ctx.set(unpacker.en, 0)
                await ctx.delay(1e-9)
                assert ctx.get(unpacker.values) == 0

    simulator = Simulator(unpacker)
    simulator.add_testbench(bench)
    simulator.run()
