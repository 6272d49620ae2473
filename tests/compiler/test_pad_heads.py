"""Heads of any width: padding changes no accumulator, and the simulator executes the result."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from torch import nn
from torch.nn import functional as F

from signmask.compiler.backend.lower import lower
from signmask.compiler.calibration import Calibration
from signmask.compiler.frontend import calibrate, quantise, trace
from signmask.compiler.passes.pad_heads import Places, pad_heads
from signmask.compiler.passes.quantise import build_network
from signmask.compiler.verifier import verify_network
from signmask.hw.spec.config import NANO
from signmask.hw.spec.network import Knobs, Network
from signmask.reference.golden import GoldenModel
from signmask.reference.models.unet import scheduler
from signmask.runtime.host import input_codes
from signmask.sim.machine import Machine
from tests.compiler.models import TinyUNet

STEPS = 4


class SharedOperands(nn.Module):
    """Queries, keys and values are one tensor with addends, which a sum and a second attention with
    other heads read as well; the products go through a 3x3 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 24, 3, padding=1)
        self.inner = nn.Conv2d(24, 24, 1)
        self.mix = nn.Conv2d(24, 24, 3, padding=1)
        self.last = nn.Conv2d(24, 2, 3, padding=1)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        del timestep
        x = self.stem(sample)
        x = x + self.inner(F.silu(x))
        n, c, h, w = x.shape
        tokens = x.view(n, c, h * w).transpose(1, 2)
        for heads in (3, 2):
            operand = tokens.view(n, -1, heads, c // heads).transpose(1, 2)
            mixed = F.scaled_dot_product_attention(operand, operand, operand)
            mixed = mixed.transpose(1, 2).reshape(n, -1, c).transpose(1, 2).reshape(n, c, h, w)
            x = x + self.mix(mixed)
        return self.last(F.silu(x))


class HeadsOfTwenty(nn.Module):
    """Two heads wider than a group, of 20 channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 40, 3, padding=1)
        self.q, self.k, self.v = (nn.Linear(40, 40) for _ in range(3))
        self.last = nn.Conv2d(40, 2, 1)

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        del timestep
        x = self.stem(sample)
        n, c, h, w = x.shape
        tokens = x.view(n, c, h * w).transpose(1, 2)
        q, k, v = (
            layer(tokens).view(n, -1, 2, 20).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, -1, c)
        return self.last(x + mixed.transpose(1, 2).reshape(n, c, h, w))


class SharedProjection(HeadsOfTwenty):
    """One projection is queries, keys and values at once."""

    def __init__(self) -> None:
        super().__init__()
        self.k = self.v = self.q

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        del timestep
        x = self.stem(sample)
        n, c, h, w = x.shape
        operand = self.q(x.view(n, c, h * w).transpose(1, 2)).view(n, -1, 2, 20).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(operand, operand, operand).transpose(1, 2)
        return self.last(x + mixed.reshape(n, -1, c).transpose(1, 2).reshape(n, c, h, w))


def diffusers_unet() -> nn.Module:
    """Diffusers' default width of a head, 8 channels."""
    return UNet2DModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        block_out_channels=(16, 24),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8,
    )


MODELS = {
    "tiny": TinyUNet,
    "diffusers": diffusers_unet,
    "twenty": HeadsOfTwenty,
    "shared": SharedOperands,
    "projection": SharedProjection,
}


@cache
def model(name: str) -> nn.Module:
    torch.manual_seed(5)
    return MODELS[name]().eval()


EXAMPLE = (torch.zeros(1, 2, 8, 8), torch.tensor([1]))


@cache
def calibration(name: str) -> Calibration:
    return calibrate(model(name), scheduler(), STEPS, EXAMPLE, images=2)


def unpadded(name: str, knobs: Knobs) -> tuple[Network, dict[str, np.ndarray]]:
    graph = trace(model(name), calibration(name).timesteps, EXAMPLE)
    return build_network(graph, calibration(name), knobs, name)


def accumulators(network: Network, tensors: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    golden = GoldenModel(network, tensors, 2)
    results = []
    for step, x in enumerate(calibration(name).inputs):
        function = golden.delta_step if step else golden.dense_step
        results.append(function(step, input_codes(network, x)).accumulators)
    return results


@pytest.mark.parametrize("dataflow", ["dense", "restore", "mask"])
@pytest.mark.parametrize("name", MODELS)
def test_padding_changes_no_accumulator(name, dataflow):
    network, tensors = unpadded(name, Knobs(dataflow=dataflow))
    wide = dict(tensors)
    padded = pad_heads(network, wide)
    verify_network(padded, wide)
    for attention in padded.attentions.values():
        assert padded.sources[attention.out].channels // attention.heads % 16 == 0
    before, after = accumulators(network, tensors, name), accumulators(padded, wide, name)
    for a, b in zip(before, after, strict=True):
        assert a.any()
        assert (a == b).all()


def test_work_counts_stay_those_of_the_model():
    for name in MODELS:
        network, tensors = unpadded(name, Knobs())
        padded = pad_heads(network, dict(tensors))
        total = sum(linear.macs for linear in network.linears.values())
        assert sum(linear.macs for linear in padded.linears.values()) == total


def test_legal_heads_are_left_alone():
    network, tensors = unpadded("tiny", replace(Knobs(), group=4))
    before = dict(tensors)
    assert pad_heads(network, tensors) == network
    assert all(tensors[key] is tensor for key, tensor in before.items())


def test_places_of_heads():
    places = Places.of_heads(6, 2, 4)
    assert places.width == 8
    spread = places.spread(np.arange(1, 7)[None], axis=1, fill=9)
    assert spread.tolist() == [[1, 2, 3, 9, 4, 5, 6, 9]]


@pytest.mark.parametrize("dataflow", ["dense", "restore", "mask"])
@pytest.mark.parametrize("name", MODELS)
def test_the_simulator_equals_the_golden_model(name, dataflow):
    knobs = Knobs(dataflow=dataflow)
    network, tensors = quantise(
        model(name), scheduler(), STEPS, knobs, calibration(name), name, EXAMPLE
    )
    machine = Machine(lower(network, tensors, NANO, 2))
    expected = accumulators(network, tensors, name)
    for step, x in enumerate(calibration(name).inputs):
        dense = step == 0 or dataflow == "dense"
        function = machine.dense_step if dense else machine.delta_step
        assert (function(step, input_codes(network, x)).accumulators == expected[step]).all(), step
