"""One PE of several lane mixes: multiplier sizes in the netlist, sums against integers."""

import re
from collections import Counter

import numpy as np
import pytest
from amaranth.back import rtlil
from amaranth.sim import Simulator

from signmask.hw.pe import LaneMix, Pe
from signmask.hw.spec import timing
from signmask.hw.spec.config import EDGE, NANO, PAPER, HardwareConfig

MIXES = {
    "nano": LaneMix.of(NANO),
    "int4": LaneMix.of(HardwareConfig("int4", inlier_bits=4)),
    "int5": LaneMix.of(HardwareConfig("int5", inlier_bits=5, full_lanes=1)),
    "paper": LaneMix.of(PAPER),
    "all full": LaneMix.of(HardwareConfig("full", group=8, full_lanes=8)),
    "dense": LaneMix.dense(16),
}


def multipliers(mix):
    """How many cells of each pair of operand widths multiply, and that all are signed."""
    text = rtlil.convert(Pe(mix), name="pe")
    found = Counter()
    for cell in re.findall(r"cell \$mul .*?\n\s+end\n", text, re.DOTALL):
        values = dict(re.findall(r"parameter (?:signed )?\\(\w+) (\S+)", cell))
        assert int(values["A_SIGNED"]) and int(values["B_SIGNED"]), values
        found[int(values["A_WIDTH"]), int(values["B_WIDTH"])] += 1
    return found


@pytest.mark.parametrize("name", MIXES)
def test_multiplier_widths(name):
    mix = MIXES[name]
    expected = Counter({(mix.narrow_bits, 8): mix.group})
    if mix.full_lanes:
        expected[9, 8] += mix.full_lanes
    assert multipliers(mix) == expected


def test_narrow_lanes_are_one_bit_wider_than_inliers():
    assert [MIXES[name].narrow_bits for name in ("nano", "int4", "int5")] == [4, 5, 6]
    assert MIXES["dense"].narrow_bits == 8


def packed(values, bits):
    return sum((int(value) & (1 << bits) - 1) << i * bits for i, value in enumerate(values))


@pytest.mark.parametrize("name", MIXES)
def test_sums(name):
    """A pass in every cycle or with gaps; sums of several passes, some from an initial value."""
    mix, rng = MIXES[name], np.random.default_rng(5)
    pe, stages = Pe(mix), mix.stages
    passes = []
    for _ in range(120):
        full = rng.random() < 0.2
        low, high = -(1 << mix.narrow_bits - 1), (1 << mix.narrow_bits - 1) - 1
        digits = rng.choice([low, high], mix.group) if full else rng.integers(
            low, high + 1, mix.group)  # fmt: skip
        passes.append(
            dict(
                busy=rng.random() < 0.8, digits=digits, place=int(rng.integers(mix.digits)),
                weights=rng.choice([-128, 127], mix.group) if full else rng.integers(
                    -128, 128, mix.group),
                indices=rng.integers(0, mix.group, mix.full_lanes),
                values=rng.integers(-256, 256, mix.full_lanes), first=int(rng.random() < 0.3),
                add=int(rng.integers(2)), initial=int(rng.integers(-(1 << 20), 1 << 20)),
            )
        )  # fmt: skip
    passes[0] |= dict(busy=True, first=1)
    empty = passes[0] | dict(busy=False)

    async def bench(ctx):
        total = 0
        for t in range(len(passes) + stages):
            now = [passes[t - s] if 0 <= t - s < len(passes) else empty for s in range(stages + 1)]
            first, late, last, seen = now[0], now[stages - 2], now[stages - 1], now[stages]
            if seen["busy"]:
                base = seen["initial"] * seen["add"] if seen["first"] else total
                total = base + (int(seen["digits"] @ seen["weights"]) << (
                    seen["place"] * mix.digit_bits))  # fmt: skip
                total += int(seen["values"] @ seen["weights"][seen["indices"]])
            assert ctx.get(pe.total) == total
            ctx.set(pe.enable, sum(p["busy"] << s for s, p in enumerate(now[:stages])))
            ctx.set(pe.digits, packed(first["digits"], mix.narrow_bits))
            ctx.set(pe.weights, packed(first["weights"], 8))
            if mix.full_lanes:
                ctx.set(pe.indices, packed(first["indices"], mix.index_bits))
                ctx.set(pe.values, packed(first["values"], 9))
            if mix.digits > 1:
                ctx.set(pe.place, late["place"])
            ctx.set(pe.first, last["first"])
            ctx.set(pe.add, last["add"])
            ctx.set(pe.initial, last["initial"])
            await ctx.tick()

    simulator = Simulator(pe)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize("config", [NANO, EDGE, PAPER])
def test_fill_is_the_pipeline(config):
    """Placing the rows, five stages to the PEs, their stages, writing back."""
    stages = LaneMix.of(config).stages
    assert timing.array_fill(config) == (config.rows - 1).bit_length() + 5 + stages + 1
