"""FP16 PEs against the same sums in numpy's float16."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator, SimulatorContext

from signmask.hw.emit import emit
from signmask.hw.float_pe import FloatPe
from signmask.hw.ports import address_bits

VECTORS = 24
SUM_LENGTH = 6


def tree(terms: list[np.float16]) -> np.float16:
    """Sum of neighbours, level by level."""
    while len(terms) > 1:
        pairs = [terms[i] + terms[i + 1] for i in range(0, len(terms) - 1, 2)]
        terms = pairs + terms[len(terms) - len(terms) % 2 :]
    return terms[0]


def packed(words: np.ndarray, bits: int) -> int:
    return sum((int(word) & ((1 << bits) - 1)) << (i * bits) for i, word in enumerate(words))


@pytest.mark.parametrize(("narrow", "full"), [(0, 1), (0, 4), (0, 5), (5, 1), (6, 2), (3, 4)])
def test_sums_equal_numpy(narrow: int, full: int) -> None:
    rng = np.random.default_rng(narrow * 10 + full)
    pe = FloatPe(narrow, full, separate=False)
    count = narrow or full
    weights = rng.normal(size=(VECTORS, count)).astype(np.float16)
    values = (4 * rng.normal(size=(VECTORS, full))).astype(np.float16)
    integers = rng.integers(-4, 4, (VECTORS, narrow))
    indices = rng.integers(0, count, (VECTORS, full))
    scale = np.float16(0.37)
    found: list[int] = []

    async def bench(ctx: SimulatorContext) -> None:
        ctx.set(pe.en, 1)
        if narrow:
            ctx.set(pe.scale, int(scale.view(np.uint16)))
        for cycle in range(VECTORS + pe.latency - 1):
            at = min(cycle, VECTORS - 1)
            ctx.set(pe.first, int(cycle % SUM_LENGTH == 0))
            ctx.set(pe.weights, packed(weights[at].view(np.uint16), 16))
            ctx.set(pe.values, packed(values[at].view(np.uint16), 16))
            if narrow:
                ctx.set(pe.integers, packed(integers[at], pe.integer_bits))
                ctx.set(pe.indices, packed(indices[at], address_bits(narrow)))
            await ctx.tick()
            if cycle >= pe.latency - 1:
                found.append(ctx.get(pe.result))

    simulator = Simulator(pe)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()

    expected, total = [], np.float16(0)
    for at in range(VECTORS):
        chosen = weights[at][indices[at]] if narrow else weights[at]
        term = tree(list(values[at] * chosen))
        if narrow:
            term = tree(list(integers[at].astype(np.float16) * weights[at])) * scale + term
        total = (np.float16(0) if at % SUM_LENGTH == 0 else total) + term
        expected.append(int(np.float16(total).view(np.uint16)))
    assert found == expected


def test_arithmetic_is_emitted_once() -> None:
    sources = emit(FloatPe(6, 2), "float_pe").sources
    assert set(sources) == {
        "float_pe.v", "signmask_fp16_multiplier.v", "signmask_fp16_adder.v",
        "signmask_fp16_accumulator.v", "signmask_fp16_narrow_3.v",
    }  # fmt: skip
    assert sources["float_pe.v"].count("signmask_fp16_narrow_3 ") == 6


@pytest.mark.filterwarnings("ignore::amaranth.UnusedElaboratable")
@pytest.mark.parametrize(("narrow", "full"), [(4, 0), (-1, 2)])
def test_impossible_lanes_are_refused(narrow: int, full: int) -> None:
    with pytest.raises(ValueError, match="give at least one full lane"):
        FloatPe(narrow, full)
