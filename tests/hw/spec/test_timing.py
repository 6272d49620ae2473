"""Cycle formulas at points worked out by hand for the preset nano."""

from dataclasses import replace

import numpy as np

from signmask.hw.spec import timing
from signmask.hw.spec.config import EDGE, NANO


def test_bus():
    assert [timing.beats(NANO, size) for size in (0, 1, 16, 17)] == [0, 1, 1, 2]


def heads(config, rooms):
    dispatch = timing.Dispatch(config)
    return [dispatch.head(room) for room in rooms]


def test_dispatch():
    # Request in cycle 1, beats in 101 and 102, queue in 103, start in 104.
    assert heads(NANO, [0] * 3) == [104, 106, 108]
    # 64 bytes per cycle carry two instructions, of which one per cycle is handed out.
    assert heads(EDGE, [0] * 4) == [103, 104, 105, 106]
    # The queue has no room before cycle 110: the beats of one more instruction are held back.
    assert heads(NANO, [0, 110, 0, 0]) == [104, 111, 112, 114]
    assert heads(EDGE, [0, 110, 0, 0]) == [103, 111, 112, 113]


def test_landing():
    assert timing.weight_chunk(NANO) == timing.weight_chunk(EDGE) == 64
    # 10 bytes per word: 3 words on 2 beats, one word per cycle; from byte 8 on, one beat later.
    assert timing.landing(NANO, 0, 30, 3, 10) == 3
    assert timing.landing(NANO, 8, 30, 3, 10) == 4
    assert timing.landing(NANO, 8, 300, 3, 100) == 20
    assert timing.load_occupied(1) == 3
    assert timing.load_done(NANO, 1) == 3 + 100 + 1 + 2
    # Words of 1, 1 and 16 outliers: on beats 0, 0 and 2 of 3.
    assert timing.list_landing(NANO, 0, np.array([2, 2, 32])) == (3, 6)
    assert timing.list_landing(NANO, 0, np.array([2, 32, 2, 2])) == (5, 7)


def test_store():
    # 3 words of 10 bytes: beats leave behind the second and third word, or behind each word.
    assert timing.store_area(NANO, 0, 30, 3) == 7 + 2
    assert timing.store_area(NANO, 12, 30, 3) == 7 + 2
    assert timing.store_area(NANO, 0, 64, 1) == 7 + 3
    assert timing.store_list(NANO, 12, np.array([10, 10, 10])) == 7 + 2
    assert timing.store_list(NANO, 0, np.array([2, 0, 0])) == 7 + 2
    assert timing.store_done(NANO, 10) == 111


def test_array_fill_grows_with_the_adder_tree():
    # Two levels per stage: 16 products take two stages, 64 take three.
    wide = replace(NANO, group=64, axi_bytes=64)
    assert timing.adder_stages(NANO.group, NANO.full_lanes) == 2
    assert timing.array_fill(wide) == timing.array_fill(NANO) + 1
    # Full lanes join a stage late: one lane costs a stage, five cost two.
    assert timing.adder_stages(4, 1) == timing.adder_stages(4, 0) == 1
    assert timing.adder_stages(4, 4) == 2


def test_vector():
    fill = timing.REQUANTISE_FILL
    assert timing.vector(64, fill) == 64 + fill
    # Frames of fewer than 16 positions wait for the division, unless there is only one.
    assert timing.frames(64, 4, fill) == timing.frames(64, 1, fill) == 64 + fill
    assert timing.frames(60, 4, fill) == 60 + timing.FRAME_DIVIDE_CYCLES + fill
    assert timing.requantise(64, 4, sums=True) == 64 + fill + timing.SUMS_FILL
    # 8 rows of 5 words; trees of 4 levels.
    assert timing.softmax(NANO, 8, 65) == 8 * 5 + 5 + 2 * 4 + timing.SOFTMAX_FILL


def test_normalise_tokens():
    # 6 tokens of 3 words, behind the first token's sums, its moments and the tree of 4 levels.
    assert timing.normalise_tokens(NANO, 6, 3) == 6 * 3 + 3 + 4 + 5 + 52 + 6
    assert timing.normalise_tokens(replace(NANO, group=64, axi_bytes=64), 1, 1) == 1 + 1 + 6 + 63


def test_normalisation():
    assert timing.MOMENTS_FILL + timing.CHANNEL_FILL == 67
    # 64 channels behind the 8 of the first group.
    assert timing.normalisation(NANO, 1, [64], 8) == 8 + 64 + 67
    assert timing.normalisation(NANO, 3, [64], 8) == 8 + 3 * 64 + 67
    # The single channel of each part's last plane takes two cycles, one within the first group.
    assert timing.normalisation(NANO, 1, [17, 33], 2) == 25 + 1 + 52 + 67
    assert timing.normalisation(NANO, 1, [64], 32, trend=True) == 32 + 4 + 4 + 2 + 64 + 67
    assert timing.constants(NANO, 1, [64], 8) == 3 + 8 + 64 + 67
    assert timing.constants(replace(NANO, group=8), 1, [64], 8) == 4 + 8 + 64 + 67
