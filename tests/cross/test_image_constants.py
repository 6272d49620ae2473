"""Images with conditions of their own: the backends against the golden model, and images alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from signmask.compiler.backend.lower import lower
from signmask.compiler.driver import compile_model
from signmask.compiler.errors import CompileError
from signmask.hw.spec.config import NANO
from signmask.hw.spec.network import Knobs
from signmask.hw.spec.network_check import check_network
from signmask.reference.golden import GoldenModel
from signmask.reference.models.unet import scheduler
from signmask.reference.triton.model import TritonModel
from signmask.sim.machine import Machine
from tests.tiny_networks import input_codes, labelled

IMAGES = 2
FLOWS = ["dense", "restore", "mask"]


def steps(model, codes, flow):
    """Results of all steps."""
    results = [model.dense_step(0, codes[0])]
    advance = model.dense_step if flow == "dense" else model.delta_step
    return results + [advance(i, codes[i]) for i in range(1, len(codes))]


def assert_equal(found, expected):
    for mine, theirs in zip(found, expected, strict=True):
        assert np.array_equal(mine.accumulators, theirs.accumulators)
        assert dict(mine.counters) == dict(theirs.counters)


@pytest.mark.parametrize("words", [4096, 320], ids=["roomy", "in pieces"])
@pytest.mark.parametrize("batch", [IMAGES, 3 * IMAGES])
@pytest.mark.parametrize("flow", FLOWS)
def test_simulator_equals_golden_model(flow, batch, words):
    network, tensors = labelled(knobs=Knobs(dataflow=flow))
    check_network(network, tensors)
    codes = input_codes(network, batch)
    expected = steps(GoldenModel(network, tensors, batch), codes, flow)
    config = replace(NANO, accumulator_words=words * batch // IMAGES)
    assert_equal(steps(Machine(lower(network, tensors, config, batch)), codes, flow), expected)


@pytest.mark.parametrize("flow", FLOWS)
def test_kernels_equal_golden_model(flow):
    network, tensors = labelled(knobs=Knobs(dataflow=flow))
    codes = input_codes(network, 2 * IMAGES)
    expected = steps(GoldenModel(network, tensors, 2 * IMAGES), codes, flow)
    assert_equal(steps(TritonModel(network, tensors, 2 * IMAGES), codes, flow), expected)


@pytest.mark.parametrize("flow", FLOWS)
def test_an_image_has_the_constants_of_its_row(flow):
    network, tensors = labelled(knobs=Knobs(dataflow=flow))
    codes = input_codes(network, IMAGES)
    both = steps(GoldenModel(network, tensors, IMAGES), codes, flow)[-1].accumulators
    for image in range(IMAGES):
        own = {
            name: value[:, image] if value.ndim == 3 and "weight" not in name else value
            for name, value in tensors.items()
        }
        single = replace(network, images=1)
        check_network(single, own)
        alone = steps(GoldenModel(single, own, 1), codes[:, image : image + 1], flow)[-1]
        assert np.array_equal(both[image], alone.accumulators[0])
    assert not np.array_equal(both[0], both[1])


def test_a_batch_of_some_of_the_images_is_refused_before_calibration():
    class Labelled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.label = nn.Conv2d(3, 3, 1), nn.Embedding(4, 3)

        def forward(self, sample, timestep, label):
            return self.conv(sample + self.label(label)[:, :, None, None])

    def never(stage, fraction):
        raise RuntimeError("calibration has begun")

    example = (torch.zeros(2, 3, 4, 4), torch.tensor([1]), torch.tensor([0, 3]))
    with pytest.raises(CompileError, match=r"made for 2 images at once .* compile with --batch 4"):
        compile_model(
            Labelled().eval(), NANO, Knobs(), 2, 3, scheduler(), example_inputs=example,
            progress=never,
        )  # fmt: skip


def test_a_batch_of_some_of_the_images_is_not_lowered():
    network, tensors = labelled()
    with pytest.raises(CompileError, match=r"made for 2 images at once .* compile with --batch 4"):
        lower(network, tensors, NANO, 3)
