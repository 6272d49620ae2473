"""The bundled trained models, by name: weights, facts, and the way to pixels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file

from signmask.reference.models import data
from signmask.reference.models.unet import ACTIVATIONS, VARIANTS, build_unet, scheduler

__all__ = ["activation", "facts", "folder", "load", "names", "sample", "scheduler", "to_pixels"]

INPUT_SHAPE = (4, 16, 16)


def names() -> tuple[str, ...]:
    """Names of the bundled models."""
    return VARIANTS


def folder(name: str) -> Path:
    """Folder of a model's weights, training.json and MODEL_CARD.md; ValueError where unknown."""
    if name not in VARIANTS:
        raise ValueError(f"unknown model '{name}'; the bundled models are {', '.join(VARIANTS)}.")
    return Path(__file__).parent / name


def activation(name: str) -> str:
    """The activation inside the residual blocks and before the output: 'silu' or 'relu'."""
    folder(name)
    return ACTIVATIONS[name]


def load(name: str) -> UNet2DModel:
    """The trained model in evaluation mode, float32, without gradients.

    It predicts the noise of (N, 4, 16, 16); `to_pixels` unfolds a sample. Raises ValueError for an
    unknown name and FileNotFoundError where the installed package lacks the weights.
    """
    weights = folder(name) / "weights.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(
            f"the weights of model '{name}' are missing at {weights}; reinstall signmask, or train "
            f"it with 'python -m signmask.reference.models.train {name}'."
        )
    unet = build_unet(name)
    unet.load_state_dict(load_file(weights))
    return unet.eval().requires_grad_(False)


def facts(name: str) -> dict[str, Any]:
    """The model card in figures: what the training and the evaluation recorded.

    Keys: name, activation, parameters, input_shape, data, licence, recipe; iterations, batch, seed,
    minutes, train_loss, validation_loss of the training run; those of `evaluate` where it was run.
    """
    home = folder(name)
    result: dict[str, Any] = {
        "name": name,
        "activation": activation(name),
        "parameters": sum(p.numel() for p in load(name).parameters()),
        "input_shape": list(INPUT_SHAPE),
        "data": "Fashion-MNIST (Zalando), Debian package dataset-fashion-mnist, MIT licence",
        "licence": "Apache-2.0",
        "recipe": f"python -m signmask.reference.models.train {name}",
    }
    for recorded in ("training.json", "evaluation.json"):
        if (home / recorded).is_file():
            result |= json.loads((home / recorded).read_text())
    del result["variant"]
    return result


def to_pixels(folded: torch.Tensor) -> torch.Tensor:
    """Samples (N, 4, 16, 16) to pixels (N, 1, 32, 32), clipped to [-1, 1]."""
    return data.unfold(folded).clamp(-1, 1)


@torch.no_grad()
def sample(name: str, images: int, steps: int = 50, seed: int = 0, batch: int = 64) -> torch.Tensor:
    """Images of the float32 model as pixels (images, 1, 32, 32): DDIM, eta 0.

    The noise is drawn at once from `seed`: `batch` changes an image by float32 rounding only.
    """
    unet, sampler = load(name), scheduler()
    noise = torch.randn((images, *INPUT_SHAPE), generator=torch.Generator().manual_seed(seed))
    done = []
    for x in noise.split(batch):
        sampler.set_timesteps(steps)
        for t in sampler.timesteps:
            x = sampler.step(unet(x, t).sample, t, x, eta=0.0).prev_sample
        done.append(to_pixels(x))
    return torch.cat(done)
