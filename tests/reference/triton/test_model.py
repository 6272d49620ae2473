"""A network on the kernels equals the golden model in every step: accumulators and counters."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from signmask.hw.spec.network import Knobs
from signmask.reference.golden import GoldenModel
from signmask.reference.triton.errors import GpuError
from signmask.reference.triton.model import TritonModel
from tests.tiny_networks import (
    input_codes,
    minimal,
    residual,
    transformer,
    unet,
    video,
    with_knobs,
)

# A refresh in the middle, and a step index that is left out.
PLAN = ((0, True), (1, False), (2, True), (3, False), (5, False))
SHORT = ((0, True), (1, False), (3, False))
STEPS = 7
LOOPS = {
    "open": {"loop": "open"},
    "carry": {"loop": "carry", "carry_bits": 4},
    "carry nothing": {"loop": "carry", "carry_bits": 0},
    "closed": {"loop": "closed"},
}


def compare(built, batch, plan=SHORT, change=0.3, codes=None):
    """Both models through a plan; returns the results of the kernels."""
    if codes is None:
        codes = input_codes(built[0], batch, change=change)
    golden, model = GoldenModel(*built, batch), TritonModel(*built, batch)
    results = []
    for index, dense in plan:
        step = "dense_step" if dense else "delta_step"
        want = getattr(golden, step)(index, codes[index])
        made = getattr(model, step)(index, codes[index])
        assert made.accumulators.dtype == np.int32
        assert np.array_equal(made.accumulators, want.accumulators), index
        assert made.counters == want.counters, index
        results.append(made)
    assert len(np.unique(results[-1].accumulators)) > 20
    return results


def built_with(network, size=4, steps=STEPS, **knobs):
    return with_knobs(network(size=size, steps=steps), **knobs)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("norm", "overflow"), [("trend", "clip"), ("calibrated", "spill")])
def test_mask_steps(loop, norm, overflow):
    built = built_with(residual, norm=norm, overflow=overflow, **LOOPS[loop])
    results = compare(built, 2, PLAN)
    counted = [r.counters["input"] for r in results if "input" in r.counters]
    assert any(c["clipped"] for c in counted) == (overflow == "clip")
    assert any(r.counters.get("act_1", {}).get("segment_changes") for r in results)


@pytest.mark.parametrize(
    ("flow", "overflow"), [("dense", "spill"), ("restore", "spill"), ("restore", "clip")]
)
def test_dense_and_restoring_steps(flow, overflow):
    built = built_with(unet, dataflow=flow, overflow=overflow, norm="live")
    compare(built, 1, ((0, True), (1, False), (2, True), (4, False)))


@pytest.mark.parametrize(
    ("network", "options"),
    [
        (minimal, {"overflow": "clip"}),
        (unet, {"loop": "closed"}),
        (unet, {"loop": "open", "norm": "calibrated", "overflow": "clip"}),
        (transformer, {"loop": "carry", "carry_bits": 5}),
        (transformer, {"dataflow": "restore"}),
    ],
)
def test_networks(network, options):
    compare(built_with(network, **options), 2, PLAN if network is minimal else SHORT)


@pytest.mark.parametrize("options", [{"loop": "closed"}, {"dataflow": "restore"}])
def test_frames_of_videos(options):
    compare(built_with(video, size=2, **options), 6)


def test_text_of_two_prompts_over_the_images_of_a_batch():
    compare(with_knobs(transformer(rows=2, steps=STEPS)), 2)


@pytest.mark.parametrize(
    "knobs",
    [
        {"group": 8, "inlier_bits": 4, "full_lanes": 1, "mask_bits": 1},
        {"group": 64, "inlier_bits": 5, "full_lanes": 4, "mask_bits": 0},
        {"group": 32, "overflow": "clip", "grid_bits": 0},
    ],
)
def test_formats_and_fitted_activations(knobs):
    compare(residual(knobs=Knobs(**{"overflow": "clip", **knobs}), steps=STEPS, size=4), 1)


def test_wide_changes_come_and_go():
    """Steps that change nearly nothing follow one whose deltas are wider than int8."""
    built = built_with(minimal, size=16)
    codes = np.repeat(input_codes(built[0], 1)[:1], STEPS, 0)
    codes[1:, :, :8] = ~codes[1:, :, :8]
    codes[2:, :, :, 3] = ~codes[2:, :, :, 3]
    codes[3:, :, 9, 9] = np.where(codes[3:, :, 9, 9] < 0, 127, -128)
    codes[4:, :, 2:4] = np.where(codes[4:, :, 2:4] < 0, 127, -128)
    codes[5:, :, 12:] = np.where(codes[5:, :, 12:] < 0, 127, -128)
    compare(built, 1, [(i, i == 0) for i in range(STEPS)], codes=codes)


def test_saturated_stream_elements_are_counted():
    network, tensors = built_with(minimal)
    tensors = dict(tensors)
    name = network.streams["hidden"].table
    tensors[name] = tensors[name].copy()
    tensors[name][:, 0] = 10**6
    tensors[name][3, 1] = -(10**6)
    results = compare((network, tensors), 2)
    assert results[0].counters["streams"]["hidden"] == 2 * 4 * 4
    assert results[-1].counters["streams"]["hidden"] > 0


@pytest.mark.parametrize("flow", ["mask", "restore"])
def test_placements_of_single_encodings(flow):
    """Encodings of a mask or restoring program that restore, or work on raw codes."""
    network, tensors = built_with(unet, dataflow=flow)
    modes = {"act_1": "restore", "plain_down": "dense", "act_3": "restore", "act_out": "dense"}
    encodings = {n: replace(e, mode=modes.get(n, e.mode)) for n, e in network.encodings.items()}
    compare((replace(network, encodings=encodings), tensors), 1, PLAN[:5])


def test_a_program_of_any_dataflow_starts_anew_at_a_dense_step():
    built = built_with(minimal, loop="carry", carry_bits=4, overflow="clip")
    codes = input_codes(built[0], 1, change=0.5)
    model, fresh = TritonModel(*built, 1), TritonModel(*built, 1)
    for index, dense in ((0, True), (1, False), (2, True), (3, False)):
        step = model.dense_step if dense else model.delta_step
        later = step(index, codes[index])
    fresh.dense_step(2, codes[2])
    assert np.array_equal(later.accumulators, fresh.delta_step(3, codes[3]).accumulators)


def test_results_are_not_overwritten_by_later_steps():
    built = built_with(minimal)
    codes, model = input_codes(built[0], 1, change=0.5), TritonModel(*built, 1)
    first = model.dense_step(0, codes[0]).accumulators
    kept = first.copy()
    model.delta_step(1, codes[1])
    assert np.array_equal(first, kept)


def test_mistakes_are_named():
    network, tensors = built_with(minimal)
    codes = input_codes(network, 1)
    model = TritonModel(network, tensors, 1)
    with pytest.raises(RuntimeError, match="execute a dense step first"):
        model.delta_step(0, codes[0])
    with pytest.raises(ValueError, match="step 7 does not exist"):
        model.dense_step(7, codes[0])
    with pytest.raises(ValueError, match="input codes are int16"):
        model.dense_step(0, codes[0].astype(np.int16))
    with pytest.raises(ValueError, match=r"takes int8 \(1, 4, 4, 3\)"):
        model.dense_step(0, codes[0][:, :2])
    with pytest.raises(GpuError, match="live norm in mask steps"):
        TritonModel(*built_with(residual, norm="live"), 1)


def test_a_step_that_failed_must_be_followed_by_a_dense_one(monkeypatch):
    built = built_with(minimal)
    codes, model = input_codes(built[0], 1), TritonModel(*built, 1)
    model.dense_step(0, codes[0])
    with monkeypatch.context() as broken:
        broken.setattr(torch, "empty", lambda *_, **__: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            model.delta_step(1, codes[1])
    with pytest.raises(RuntimeError, match="execute a dense step first"):
        model.delta_step(1, codes[1])
    model.dense_step(1, codes[1])
