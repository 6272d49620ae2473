"""Rules of the near-data engine's cycles, on cases counted by hand."""

from dataclasses import replace

import numpy as np

from signmask.hw.spec import engine_timing as timing
from signmask.hw.spec.config import EDGE, NANO

FIRST = np.array([True, False, False])


def test_a_bit_per_lane_of_a_frame_fits_a_beat():
    assert timing.frame_words(NANO) == 32
    assert timing.frame_words(EDGE) == 64
    assert timing.frame_words(replace(NANO, group=64, axi_bytes=64, columns=64)) == 8
    assert timing.frame_words(replace(NANO, group=24, axi_bytes=48, columns=24)) == 16


def test_beats_that_two_frames_share_are_read_once():
    sizes, low = np.array([100, 28, 64]), np.array([0])
    assert timing.read_beats(NANO, sizes, FIRST, low).tolist() == [2, 0, 1]
    # From byte 60 of a beat, 100 bytes end in the third.
    assert timing.read_beats(NANO, sizes, FIRST, low + 60).tolist() == [3, 0, 1]
    # A region begins with a beat of its own; without bytes it has none.
    starts = np.array([True, True, True])
    assert timing.read_beats(NANO, sizes * [1, 0, 1], starts, np.array([0, 5, 5])).tolist() == [
        2, 0, 2,
    ]  # fmt: skip


def test_beats_are_written_when_full_or_last():
    sizes, low, none = np.array([100, 28, 70]), np.array([0]), np.zeros(3, bool)
    last = np.array([False, False, True])
    assert timing.write_beats(NANO, sizes, FIRST, low, none).tolist() == [1, 1, 1]
    assert timing.write_beats(NANO, sizes, FIRST, low, last).tolist() == [1, 1, 2]
    assert timing.write_beats(NANO, sizes * 0, FIRST, low + 9, last).tolist() == [0, 0, 0]


def stream(words, areas, writes):
    """Frames of READ."""
    return timing.Frames(
        np.array(words), np.ones(len(words), int), np.array(areas), None, np.array(writes), 0
    )


def test_each_step_of_one_frame_waits_for_the_one_before():
    def cycles(latency):
        return timing.engine(
            replace(NANO, near_data_latency=latency), "READ", timing.Table(0, 128, 64), [], [],
            stream([32], [16], [8]),
        )  # fmt: skip

    # Two beats of the descriptor from cycle 3 on, 16 of words, 32 words, 8 beats written; three
    # latencies; the rest are the stages between.
    known = 4 + 40 + timing.ARRIVAL + timing.KNOWN
    words = known + 16 + 40 + timing.ARRIVAL + 32
    written = words + timing.FINISH_STAGE["READ"] + 1 + 8
    assert cycles(40) == written + 40 + timing.WRITTEN + 1 == 197
    assert cycles(41) == cycles(40) + 3


def test_a_long_stream_is_bound_by_its_slowest_part():
    def cycles(frames, areas, writes):
        return timing.engine(
            NANO, "READ", timing.Table(0, 128, 64), [], [],
            stream([32] * frames, [areas] * frames, [writes] * frames),
        )  # fmt: skip

    for areas, writes in ((16, 8), (40, 8), (16, 45)):
        assert cycles(101, areas, writes) - cycles(100, areas, writes) == max(32, areas, writes)


def test_tables_of_a_boundary():
    def words(norm, loop="closed", planes=4, images=2, segments=True, stepped=False):
        return timing.table_words(NANO, planes, images, 8, norm, loop, segments, stepped)

    assert words("affine") == 3 + 2 * 4
    assert words("calibrated") == 3 + 8
    assert words("calibrated", "open") == 3 + 4 * 4
    # Gain and offset, sums, four trend tables, A and B.
    assert words("trend") == 3 + 8 + 16 + 4 + 16
    assert words("trend", "carry") == words("trend") + 8
    assert words("trend", "open", segments=False) == 3 + 8 + 16 + 4 + 8
    # The gains of two steps.
    assert words("trend", "carry", stepped=True) == words("trend", "carry") + 4
    assert words("trend", stepped=True) == words("trend")
    assert words("trend", "open", segments=False, stepped=True) == 3 + 8 + 16 + 4 + 8
