import copy
import dataclasses

import numpy as np
import pytest

from signmask.compiler.calibration import schedule_of
from signmask.compiler.delta_shares import delta_shares
from signmask.compiler.frontend import calibrate, quantise, trace
from signmask.compiler.graph import AttentionOp, EncodingOp, LinearOp, StreamOp
from signmask.compiler.passes.weights import quantise_weight, spread_inputs
from signmask.compiler.synthetic import (
    absent,
    is_absent,
    lacks_weights,
    unit_normal,
)
from signmask.hw.spec.network import Knobs
from signmask.reference.models import bundled
from tests.compiler.models import example, tiny

STEPS = 4


@pytest.fixture(scope="module")
def graph():
    _, timesteps = schedule_of(bundled.scheduler(), STEPS)
    return trace(tiny(), timesteps, example())


@pytest.fixture(scope="module")
def measured():
    return calibrate(tiny(), bundled.scheduler(), STEPS, example(), images=16)


def without_weights(graph):
    bare = copy.deepcopy(graph)
    for _, op in bare.of(LinearOp):
        op.weight = absent(op.weight.shape)
    return bare


def test_absent_weights_take_no_memory():
    weight = absent((1 << 20, 1 << 20, 3, 3))
    assert is_absent(weight) and is_absent(weight[:5].transpose(0, 2, 3, 1))
    assert is_absent(spread_inputs(weight, 4)) and spread_inputs(weight, 4).shape[1] == 1 << 22
    assert not is_absent(np.zeros((4, 4), np.float32)) and not is_absent(np.float32([[3]]))


def test_absent_weights_quantise_to_absent_codes():
    q = quantise_weight("w", absent((64, 1 << 14, 3, 3)), 0.02, 0.004)
    assert is_absent(q.weight) and q.weight.dtype == np.int8
    assert q.weight.shape == (64, 3, 3, 1 << 14)
    # As wide as normal weights of variance 1 / inputs, whose step the best clip gives.
    inputs = 256
    normal = np.random.default_rng(0).normal(size=(64, inputs, 1, 1)) / inputs**0.5
    real = quantise_weight("w", normal.astype(np.float32), 0.02, 0.004)
    assumed = quantise_weight("w", absent((64, inputs, 1, 1)), 0.02, 0.004)
    assert 0.7 < assumed.scale.mean() / real.scale.mean() < 1.7


def test_large_weights_are_clipped_almost_as_well_as_by_trying():
    weight = np.random.default_rng(1).standard_t(5, (120, 2880, 1, 1)).astype(np.float32)

    def error(q):
        restored = q.weight[:, 0, 0].astype(np.float64) * q.scale[:, None]
        return float(((restored - weight[:, :, 0, 0]) ** 2).sum())

    parts = [quantise_weight("w", part, 0.02, None) for part in np.split(weight, 2)]
    tried = sum(
        float((((p.weight[:, 0, 0] * p.scale[:, None]) - part[:, :, 0, 0]) ** 2).sum())
        for p, part in zip(parts, np.split(weight, 2), strict=True)
    )
    assert weight.size > 1 << 18 >= weight.size // 2
    assert tried <= error(quantise_weight("w", weight, 0.02, None)) < 1.01 * tried


def test_assumed_statistics_are_near_the_measured_ones(graph, measured):
    assumed = unit_normal(graph)
    assumed.check(graph)
    assert measured.histograms.keys() <= assumed.histograms.keys()
    assert measured.group_deviation.keys() == assumed.group_deviation.keys()
    for name, deviation in measured.group_deviation.items():
        ratio = assumed.group_deviation[name] / deviation
        assert assumed.group_deviation[name].shape == deviation.shape
        assert ratio.min() > 0.4 and ratio.max() < 2.5, name
    for name, op in graph.of(EncodingOp):
        if op.norm is not None:
            weight = assumed.histograms[name]
            spread = np.sqrt((assumed.centres(name) ** 2 * weight).sum() / weight.sum())
            assert 0.9 < spread < 1.1, name


def test_streams_without_weights_add_up_variances(graph):
    bare = without_weights(graph)
    assert lacks_weights(bare) and not lacks_weights(graph)
    assumed = unit_normal(bare)
    attended = {name for _, op in bare.of(AttentionOp) for name in op.streams}
    for name, op in bare.of(StreamOp):
        if not op.adds and name not in attended:
            half = (assumed.ranges[name][1] - assumed.ranges[name][0]) / 2
            table = (op.table.max() - op.table.min()) / 2
            assert half == pytest.approx(6 * len(op.linears) ** 0.5 + table), name


def test_a_network_of_assumed_statistics_says_so():
    arguments = (tiny(), bundled.scheduler(), STEPS, Knobs(dataflow="dense"))
    network, tensors = quantise(*arguments, example_inputs=example(), images=0)
    assert network.info["statistics"] == "unit-normal" and "weights" not in network.info
    assert network.info["deltas"] == dataclasses.asdict(delta_shares(STEPS, 3, "dense"))
    again, same = quantise(*arguments, example_inputs=example(), images=0)
    assert again == network and all(np.array_equal(same[k], v) for k, v in tensors.items())
