"""The walk over an instruction's words, up to the longest that its format can say."""

import numpy as np
import pytest
from amaranth.sim import Simulator

from signmask.hw.sfu.word_counter import (
    FRAME_BITS,
    IMAGE_BITS,
    PLANE_BITS,
    WORD_BITS,
    FrameDivider,
    WordCounter,
)
from signmask.hw.spec.isa import FORMATS
from signmask.hw.spec.timing import FRAME_DIVIDE_CYCLES


def simulate(unit, bench):
    simulator = Simulator(unit)
    simulator.add_clock(1e-9)
    simulator.add_testbench(bench)
    simulator.run()


def test_widths_are_those_of_the_formats():
    for name in ("REQUANTISE", "ENCODE_RAW", "ENCODE_MASK"):
        bits = {field: bits for field, bits, _ in FORMATS[name].fields}
        assert (bits["words"], bits["planes"], bits["images"]) == (
            WORD_BITS, PLANE_BITS, IMAGE_BITS
        )  # fmt: skip


def test_divider():
    rng, unit = np.random.default_rng(3), FrameDivider()
    top = (1 << WORD_BITS) - 1
    cases = [(top, frames) for frames in (2, 3, 4, 5, 255 * 63)]
    cases += [(3 << 18, 3), (1 << 18, 2), (1 << 19, 2), ((1 << 19) - 1, 2), (1, 2)]
    cases += [
        (int(rng.integers(1, top + 1)), int(rng.choice([2, 3, rng.integers(2, 1 << FRAME_BITS)])))
        for _ in range(500)
    ]

    async def bench(ctx):
        for words, frames in cases:
            ctx.set(unit.words, words)
            ctx.set(unit.frames, frames)
            ctx.set(unit.start, 1)
            await ctx.tick()
            ctx.set(unit.start, 0)
            ctx.set(unit.words, 0)
            for _ in range(FRAME_DIVIDE_CYCLES):
                assert not ctx.get(unit.known)
                await ctx.tick()
            assert ctx.get(unit.known)
            assert ctx.get(unit.quotient) == words // frames, (words, frames)

    simulate(unit, bench)


@pytest.mark.parametrize(
    ("planes", "images", "positions"), [(2, 1, 1 << 13), (1, 1, 5000), (3, 2, 1), (2, 3, 16)]
)
def test_words_of_a_walk(planes, images, positions):
    unit = WordCounter()

    async def bench(ctx):
        ctx.set(unit.words, planes * images * positions)
        ctx.set(unit.planes, planes)
        ctx.set(unit.images, images)
        ctx.set(unit.start, 1)
        await ctx.tick()
        ctx.set(unit.start, 0)
        short = planes * images > 1 and positions < 16
        for _ in range(FRAME_DIVIDE_CYCLES if short else 0):
            assert not ctx.get(unit.word.valid)
            await ctx.tick()
        for plane in range(planes):
            for image in range(images):
                for position in range(positions):
                    word = ctx.get(unit.word)
                    last = position == positions - 1
                    plane_end = last and image == images - 1
                    want = {
                        "valid": 1, "first": position == 0, "last": last, "plane_end": plane_end,
                        "last_plane": plane == planes - 1,
                        "final": plane_end and plane == planes - 1,
                    }  # fmt: skip
                    assert {name: word[name] for name in want} == want
                    await ctx.tick()
        assert not ctx.get(unit.word.valid)

    simulate(unit, bench)
