"""The bundled models load, carry their facts, and predict noise."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from signmask.reference.models import bundled, data


@pytest.mark.parametrize("name", bundled.names())
def test_facts_agree_with_the_model(name: str) -> None:
    facts, unet = bundled.facts(name), bundled.load(name)
    assert facts["parameters"] == sum(p.numel() for p in unet.parameters())
    assert facts["name"] == name
    assert facts["input_shape"] == [unet.config.in_channels, 16, 16]


@pytest.mark.parametrize(("name", "kind"), [("fashion-silu", nn.SiLU), ("fashion-relu", nn.ReLU)])
def test_activation_is_the_one_stated(name: str, kind: type) -> None:
    unet = bundled.load(name)
    assert bundled.activation(name) == kind.__name__.lower()
    blocks = [m for m in unet.modules() if type(m).__name__ == "ResnetBlock2D"]
    assert {type(m.nonlinearity) for m in blocks} | {type(unet.conv_act)} == {kind}


@pytest.mark.parametrize("name", bundled.names())
@pytest.mark.parametrize(("timestep", "bound"), [(100, 0.12), (500, 0.009), (900, 0.0005)])
def test_the_trained_model_predicts_the_noise(name: str, timestep: int, bound: float) -> None:
    """On its own noisy samples, bounds are a little above what it reaches; an untrained or wrongly
    loaded network is at 1 or above."""
    unet = bundled.load(name)
    clean = data.fold(bundled.sample(name, 4, steps=4, seed=0))
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    steps = torch.full((4,), timestep)
    noisy = bundled.scheduler().add_noise(clean, noise, steps)
    assert (unet(noisy, steps).sample - noise).pow(2).mean().item() < bound


def test_samples_are_pixels_and_follow_the_seed() -> None:
    first, again, other = (bundled.sample("fashion-silu", 2, 3, seed) for seed in (0, 0, 1))
    assert first.shape == (2, 1, 32, 32)
    assert first.abs().max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_pixels_undo_the_fold() -> None:
    pixels = torch.rand((3, 1, 32, 32), generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(bundled.to_pixels(data.fold(pixels)), pixels)


@pytest.mark.parametrize("read", [bundled.load, bundled.facts, bundled.activation])
def test_an_unknown_name_lists_the_known_ones(read) -> None:
    with pytest.raises(ValueError, match=r"unknown model 'mnist'.*fashion-silu, fashion-relu"):
        read("mnist")


def test_missing_weights_name_the_recipe(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(bundled, "folder", lambda name: tmp_path)
    with pytest.raises(FileNotFoundError, match=r"models\.train fashion-silu"):
        bundled.load("fashion-silu")
