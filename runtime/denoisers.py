"""Torch modules of architectures and diffusers folders, all called as module(sample, timestep).

Conditions (text, class, control image) are constants of a compiled program: they are buffers of
the module that holds the model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from signmask.runtime.architectures import Architecture, Condition
from signmask.runtime.errors import RunError

Conditions = Mapping[str, torch.Tensor]
SEED = 0
# All-zero parameters (last layers, gates, zero convolutions) would make outputs that test nothing.
NOISE = 0.02
LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


class Conditioned(nn.Module):
    """A denoiser with its conditions: forward(sample, timestep) gives the predicted noise.

    sample float32 (images, channels, height, width), timestep (1,) or (images,). `conditions` by
    keyword, dotted where nested; image i has row i modulo their number. `part` names the
    denoiser in the names of its operators; `frames` images make one sample of a video model. Raises
    RunError where rows and images differ.
    """

    def __init__(
        self, model: nn.Module, conditions: Conditions, part: str = "unet", frames: int = 1
    ) -> None:
        super().__init__()
        self.part, self.frames = part, frames
        self.add_module(part, model)
        self.keywords = tuple(conditions)
        for index, tensor in enumerate(conditions.values()):
            self.register_buffer(f"condition_{index}", tensor)

    @property
    def config(self) -> Any:
        """Configuration of the denoiser."""
        return self.get_submodule(self.part).config

    @property
    def conditions(self) -> dict[str, torch.Tensor]:
        """Conditions by keyword."""
        return {k: self.get_buffer(f"condition_{i}") for i, k in enumerate(self.keywords)}

    def example(self) -> tuple[torch.Tensor, torch.Tensor]:
        """A sample of the configured shape and a timestep, to export with."""
        images = max([self.frames, *(len(c) for c in self.conditions.values())])
        return torch.zeros(images, *sample_shape(self.get_submodule(self.part))), torch.tensor([1])

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Predicted noise (and variance, where the model learns it), one tensor."""
        images = sample.shape[0]
        keywords: dict[str, Any] = {}
        for name, value in self.conditions.items():
            rows = value.shape[0]
            if images % rows:
                raise RunError(
                    f"condition '{name}' has {rows} rows for {images} images; give one row, or "
                    "a multiple of them as images."
                )
            *folders, last = name.split(".")
            inner = keywords
            for folder in folders:
                inner = inner.setdefault(folder, {})
            inner[last] = value.repeat(images // rows, *[1] * (value.ndim - 1))
        timestep = torch.as_tensor(timestep).reshape(-1).expand(images)
        result = self.get_submodule(self.part)(sample, timestep, return_dict=False, **keywords)
        return result[0] if isinstance(result, tuple) else result


class ControlledUNet(nn.Module):
    """A U-Net and the ControlNet that steers it, as one module."""

    def __init__(self, unet: nn.Module, controlnet: nn.Module) -> None:
        super().__init__()
        self.unet, self.controlnet = unet, controlnet
        self.config: Any = unet.config

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor,
        controlnet_cond: torch.Tensor, return_dict: bool = False,
    ) -> tuple[torch.Tensor]:  # fmt: skip
        """As `UNet2DConditionModel` with return_dict=False."""
        down, middle = self.controlnet(
            sample, timestep, encoder_hidden_states, controlnet_cond, return_dict=False
        )
        result: tuple[torch.Tensor] = self.unet(
            sample, timestep, encoder_hidden_states, down_block_additional_residuals=down,
            mid_block_additional_residual=middle, return_dict=False,
        )  # fmt: skip
        return result


class FramesAsImages(nn.Module):
    """A video transformer that takes the frames of one video as a batch of images."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        self.transformer = transformer
        self.config: Any = transformer.config

    def forward(
        self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor,
        return_dict: bool = False,
    ) -> tuple[torch.Tensor]:  # fmt: skip
        """As `LatteTransformer3DModel` with return_dict=False, frames first."""
        video = sample.permute(1, 0, 2, 3)[None]
        (result,) = self.transformer(
            video, timestep[:1], encoder_hidden_states[:1], return_dict=False
        )
        return (result[0].permute(1, 0, 2, 3),)


class LowRank(nn.Module):
    """A linear layer and a low-rank branch beside it: layer(x) + up(down(x))."""

    def __init__(self, layer: nn.Linear, rank: int) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Linear(layer.in_features, rank, bias=False)
        self.up = nn.Linear(rank, layer.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum of both branches."""
        return self.layer(x) + self.up(self.down(x))

    def merged(self) -> nn.Linear:
        """The layer with the branch added into its weight, in place."""
        with torch.no_grad():
            self.layer.weight += self.up.weight @ self.down.weight
        return self.layer


def build(
    architecture: Architecture, weights: bool = True, conditions: Conditions | None = None
) -> Conditioned:
    """The architecture in evaluation mode, without gradients; its conditions are synthetic ones
    where none are given.

    Weights are float32 from a fixed seed. Without `weights`, matrices are zeros that take no
    memory (zero strides), norm scales are ones and biases zeros.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(SEED)
        if weights:
            model = _assemble(architecture)
            _fill_zeros(model)
        else:
            with _ParametersOnMeta():
                model = _assemble(architecture)
            _without_weights(model)
    given = synthetic_conditions(architecture)
    unknown = sorted(set(conditions or {}) - set(given))
    if unknown:
        raise RunError(
            f"architecture '{architecture.name}' does not take the condition(s) "
            f"{', '.join(unknown)}; give {', '.join(given) or 'none'}."
        )
    given |= dict(conditions or {})
    whole = isinstance(model, (ControlledUNet, FramesAsImages))
    part = "model" if whole else next(iter(architecture.parts))
    return Conditioned(model, given, part, architecture.images).eval().requires_grad_(False)


def sample_shape(model: nn.Module) -> tuple[int, int, int]:
    """(channels, height, width) of the samples that a model's config states; raises RunError."""
    config = getattr(model, "config", None)
    channels, size = (getattr(config, name, None) for name in ("in_channels", "sample_size"))
    sides = tuple(size) if isinstance(size, list | tuple) else (size, size)
    shape = channels, *sides
    if len(shape) != 3 or not all(isinstance(n, int) and n > 0 for n in shape):
        raise RunError(
            f"the config of {type(model).__name__} has in_channels {channels} and sample_size "
            f"{size}, which state no sample (channels, height, width); set both, or export the "
            "model with torch.export.save and compile the .pt2 file."
        )
    return cast(tuple[int, int, int], shape)


def flatten(keywords: Mapping[str, Any], prefix: str = "") -> dict[str, torch.Tensor]:
    """The tensors of (nested) keyword arguments by dotted keyword; None is left out. Raises
    RunError for what makes no tensor."""
    found: dict[str, torch.Tensor] = {}
    for name, value in keywords.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name}.")
        elif value is not None:
            try:
                found[f"{prefix}{name}"] = torch.as_tensor(value)
            except (TypeError, ValueError, RuntimeError):
                raise RunError(
                    f"condition '{prefix}{name}' is a {type(value).__name__}; give a tensor."
                ) from None
    return found


def digest_of(conditions: Conditions) -> str:
    """SHA-256 of conditions, whatever their order; equal rows count as one. Empty without any."""
    if not conditions:
        return ""
    digest = hashlib.sha256()
    for name, tensor in sorted(conditions.items()):
        rows = tensor.detach().cpu()
        rows = rows.float() if rows.is_floating_point() else rows.long()
        if rows.ndim and bool((rows == rows[:1]).all()):
            rows = rows[:1]
        digest.update(f"{name} {tuple(rows.shape)} ".encode())
        digest.update(rows.contiguous().numpy().tobytes())
    return digest.hexdigest()


def synthetic_conditions(architecture: Architecture) -> dict[str, torch.Tensor]:
    """Conditions by keyword from a fixed seed, whatever was drawn before."""
    generator = torch.Generator().manual_seed(SEED)
    return {k: _draw(c, generator) for k, c in architecture.conditions.items()}


def _draw(condition: Condition, generator: torch.Generator) -> torch.Tensor:
    if condition.kind == "normal":
        return torch.randn(condition.shape, generator=generator)
    if condition.kind == "image":
        return torch.rand(condition.shape, generator=generator)
    if condition.kind == "label":
        return torch.randint(condition.limit, condition.shape, generator=generator)
    return torch.tensor(condition.values).reshape(condition.shape)


def _assemble(architecture: Architecture) -> nn.Module:
    import diffusers

    modules = {
        part: getattr(diffusers, name).from_config(dict(config))
        for part, (name, config) in architecture.parts.items()
    }
    model: nn.Module = next(iter(modules.values()))
    if architecture.lora_rank:
        _add_low_rank(model, architecture.lora_rank, architecture.merged)
    if "controlnet" in modules:
        model = ControlledUNet(model, modules["controlnet"])
    if architecture.images > 1:
        model = FramesAsImages(model)
    return model


def _add_low_rank(model: nn.Module, rank: int, merged: bool) -> None:
    for name, module in list(model.named_modules()):
        if name.endswith(LORA_TARGETS) and isinstance(module, nn.Linear):
            branch = LowRank(module, rank)
            home, _, last = name.rpartition(".")
            setattr(model.get_submodule(home), last, branch.merged() if merged else branch)


def _fill_zeros(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0.0, NOISE)


class _ParametersOnMeta(TorchFunctionMode):
    """New parameters have no storage; buffers, which hold tables, are computed as usual."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if func is torch.empty:
            return func(*args, **{**(kwargs or {}), "device": "meta"})
        return func(*args, **(kwargs or {}))


def _without_weights(model: nn.Module) -> None:
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.ndim == 1:
                value = torch.full(parameter.shape, 1.0 if name == "weight" else 0.0)
            else:
                value = torch.zeros(()).expand(parameter.shape)
            module.register_parameter(name, nn.Parameter(value, requires_grad=False))
