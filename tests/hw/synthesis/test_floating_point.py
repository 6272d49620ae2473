"""FP16 arithmetic of the RTL against numpy's float16, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from amaranth.hdl import Elaboratable
from amaranth.sim import Simulator, SimulatorContext

from signmask.hw.floating_point import NAN, Fp16Adder, Fp16Multiplier, NarrowMultiplier

SAMPLES = 1200
# Zeros, least and largest subnormals and normals, ones, halves of the last place, infinities, NaN.
CORNERS = (
    0x0000, 0x8000, 0x0001, 0x8001, 0x0200, 0x03FF, 0x0400, 0x0401, 0x0FFF, 0x13FF, 0x1400, 0x3BFF,
    0x3C00, 0xBC00, 0x3C01, 0x7801, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7C01, 0x7E00,
)  # fmt: skip


def float_pairs(seed: int) -> np.ndarray:
    """Every pair of corners, random pairs, and pairs of nearly equal magnitude."""
    rng = np.random.default_rng(seed)
    corners = [(a, b) for a in CORNERS for b in CORNERS]
    anything = rng.integers(0, 1 << 16, (SAMPLES, 2))
    one = rng.integers(0, 1 << 16, (SAMPLES, 1))
    near = np.clip((one & 0x7FFF) + rng.integers(-3000, 3000, one.shape), 0, 0x7FFF)
    near |= rng.integers(0, 2, one.shape) << 15
    return np.concatenate([np.array(corners), anything, np.hstack([one, near])])


def results(
    unit: Fp16Multiplier | Fp16Adder | NarrowMultiplier, a: Sequence[int], b: Sequence[int]
) -> np.ndarray:
    """Results of one operation per cycle."""
    found = []

    async def bench(ctx: SimulatorContext) -> None:
        ctx.set(unit.en, 1)
        for cycle in range(len(a) + unit.stages - 1):
            place = min(cycle, len(a) - 1)
            ctx.set(unit.a, int(a[place]))
            ctx.set(unit.b, int(b[place]))
            await ctx.tick()
            if cycle >= unit.stages - 1:
                found.append(ctx.get(unit.result))

    simulate(unit, bench)
    return np.array(found)


def simulate(unit: Elaboratable, bench: object) -> None:
    simulator = Simulator(unit)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


def bits(values: np.ndarray) -> np.ndarray:
    """float16 values as words, every NaN as the one of the RTL."""
    words = values.astype(np.float16).view(np.uint16)
    return np.where(np.isnan(values), NAN, words)


def floats(words: np.ndarray) -> np.ndarray:
    return words.astype(np.uint16).view(np.float16)


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("operation", ["add", "multiply"])
def test_equals_numpy(operation: str, stages: int) -> None:
    pairs = float_pairs(stages)
    a, b = floats(pairs[:, 0]), floats(pairs[:, 1])
    unit: Fp16Adder | Fp16Multiplier
    with np.errstate(all="ignore"):
        if operation == "add":
            unit, expected = Fp16Adder(stages), a + b
        else:
            unit, expected = Fp16Multiplier(stages), a * b
    np.testing.assert_array_equal(results(unit, pairs[:, 0], pairs[:, 1]), bits(expected))


@pytest.mark.parametrize("integer_bits", [3, 5])
def test_narrow_multiplier_equals_numpy(integer_bits: int) -> None:
    words = float_pairs(integer_bits)[:, 1]
    rng = np.random.default_rng(integer_bits)
    half = 1 << (integer_bits - 1)
    integers = rng.integers(-half, half, len(words))
    integers[: 2 * half] = np.arange(-half, half)
    with np.errstate(all="ignore"):
        expected = integers.astype(np.float16) * floats(words)
    found = results(NarrowMultiplier(integer_bits), integers, words)
    np.testing.assert_array_equal(found, bits(expected))


def test_disabled_cycle_keeps_the_pipeline() -> None:
    unit = Fp16Adder(2)
    seen = []

    async def bench(ctx: SimulatorContext) -> None:
        for a, en in ((0x3C00, 1), (0x4000, 0), (0x4200, 1), (0, 1)):
            ctx.set(unit.en, en)
            ctx.set(unit.a, a)
            await ctx.tick()
            seen.append(ctx.get(unit.result))

    simulate(unit, bench)
    assert seen[0] == seen[1]
    assert seen[2:] == [0x3C00, 0x4200]


@pytest.mark.filterwarnings("ignore::amaranth.UnusedElaboratable")
@pytest.mark.parametrize("stages", [0, 3])
def test_other_numbers_of_stages_are_refused(stages: int) -> None:
    with pytest.raises(ValueError, match=f"stages is {stages}; choose 1 or 2"):
        Fp16Adder(stages)
