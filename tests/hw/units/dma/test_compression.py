"""Compressor, expanded outliers and unpacked fields against the simulator's formats (Amaranth)."""

from dataclasses import replace

import numpy as np
import pytest
from amaranth.sim import Simulator

from signmask.hw.compressor import Compressor
from signmask.hw.decompressor import FieldUnpacker, OutlierExpander
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
def test_compressor(group):
    config = replace(NANO, group=group, axi_bytes=64)
    packer = Compressor(config)
    rng = np.random.default_rng(group)

    async def bench(ctx):
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

    simulator = Simulator(packer)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("group", [8, 16, 64])
def test_outliers_of_a_compressed_word(group):
    expander = OutlierExpander(replace(NANO, group=group, axi_bytes=64))
    rng = np.random.default_rng(group)

    async def bench(ctx):
        for k, wide in FORMATS[:: 1 if group < 64 else 3]:
            values = words(rng, group, k, wide)
            ctx.set(expander.wide, wide == 4)
            area, outliers = (part.tobytes() for part in compressor.compress(values, k, wide))
            at, size = 0, group * (1 + k) // 8
            for index, value in enumerate(values):
                word = int.from_bytes(area[index * size : (index + 1) * size], "little")
                bitmap = word & (1 << group) - 1
                ctx.set(expander.bitmap, bitmap)
                following = int.from_bytes(outliers[at : at + 4 * group], "little")
                ctx.set(expander.outliers, following)
                chosen = [v if bitmap >> lane & 1 else 0 for lane, v in enumerate(value)]
                for enabled in (0, 1):
                    ctx.set(expander.en, enabled)
                    await ctx.delay(1e-9)
                    want = flat(chosen, 32) if enabled else 0
                    assert ctx.get(expander.values) == want
                at += ctx.get(expander.count) * wide
            assert at == len(outliers)

    simulator = Simulator(expander)
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
