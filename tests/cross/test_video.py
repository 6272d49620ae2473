"""Attention over the frames of a video: simulator against golden model, and videos alone."""

import numpy as np
import pytest

from signmask.compiler.backend.lower import lower
from signmask.compiler.errors import CompileError
from signmask.hw.spec.config import NANO
from signmask.hw.spec.network import Knobs
from signmask.hw.spec.network_check import check_network
from signmask.reference.golden import GoldenModel
from signmask.sim.machine import Machine
from tests import tiny_networks

FRAMES = 3


def steps(model, codes, flow):
    """Results of all steps."""
    results = [model.dense_step(0, codes[0])]
    advance = model.dense_step if flow == "dense" else model.delta_step
    return results + [advance(i, codes[i]) for i in range(1, len(codes))]


@pytest.mark.parametrize("flow", ["dense", "restore", "mask"])
def test_simulator_equals_golden_model(flow):
    network, tensors = tiny_networks.video(knobs=Knobs(dataflow=flow), frames=FRAMES)
    check_network(network, tensors)
    codes = tiny_networks.input_codes(network, 2 * FRAMES)
    expected = steps(GoldenModel(network, tensors, 2 * FRAMES), codes, flow)
    found = steps(Machine(lower(network, tensors, NANO, 2 * FRAMES)), codes, flow)
    for mine, theirs in zip(found, expected, strict=True):
        assert np.array_equal(mine.accumulators, theirs.accumulators)
        assert dict(mine.counters) == dict(theirs.counters)


def test_videos_do_not_see_each_other_and_frames_do():
    network, tensors = tiny_networks.video(knobs=Knobs(dataflow="mask"), frames=FRAMES)
    codes = tiny_networks.input_codes(network, 2 * FRAMES)
    both = steps(GoldenModel(network, tensors, 2 * FRAMES), codes, "mask")[-1].accumulators
    second = codes[:, FRAMES:]
    alone = steps(GoldenModel(network, tensors, FRAMES), second, "mask")[-1].accumulators
    assert np.array_equal(both[FRAMES:], alone)
    changed = second.copy()
    changed[:, 1] = -changed[:, 1].clip(-127)
    other = steps(GoldenModel(network, tensors, FRAMES), changed, "mask")[-1].accumulators
    assert not np.array_equal(other[0], alone[0])


def test_a_batch_of_part_of_a_video_is_refused():
    network, tensors = tiny_networks.video(frames=FRAMES)
    with pytest.raises(CompileError, match=r"made for 3 images at once .* compile with --batch 6"):
        lower(network, tensors, NANO, 4)
