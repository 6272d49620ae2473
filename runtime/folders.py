"""Diffusers folders: which denoiser they hold, the conditions that it takes, and loading it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signmask.runtime.errors import RunError
from signmask.runtime.files import read_table

if TYPE_CHECKING:
    import torch
    from torch import nn

CLASSES = (
    "UNet2DModel",
    "UNet2DConditionModel",
    "DiTTransformer2DModel",
    "LatteTransformer3DModel",
)
PARTS = ("unet", "transformer")


@dataclass(frozen=True)
class DenoiserFolder:
    """path: folder of the denoiser's config.json and weights; part: its name in a pipeline;
    control: folder of a ControlNet beside it; scheduler: its configuration file."""

    path: Path
    part: str
    class_name: str
    config: Mapping[str, Any]
    control: Path | None = None
    scheduler: Path | None = None

    @property
    def files(self) -> list[Path]:
        """Files that decide what the model computes, in a fixed order."""
        folders = [self.path, *([self.control] if self.control else [])]
        return [
            file
            for folder in folders
            for file in (folder / "config.json", *sorted(folder.glob("*.safetensors")))
        ]

    @property
    def conditions(self) -> dict[str, str]:
        """Shapes of the conditions that the model takes, as text, by keyword."""
        config = self.config
        text = "float (rows, tokens, {})"
        if self.class_name == "DiTTransformer2DModel":
            return {"class_labels": "integer (rows,)"}
        if self.class_name == "LatteTransformer3DModel":
            return {"encoder_hidden_states": text.format(config.get("caption_channels"))}
        if self.class_name == "UNet2DModel":
            return {} if config.get("num_class_embeds") is None else {"class_labels": "(rows,)"}
        found = {"encoder_hidden_states": text.format(config.get("cross_attention_dim", 1280))}
        if config.get("num_class_embeds") is not None:
            found["class_labels"] = "integer (rows,)"
        if config.get("addition_embed_type") == "text_time":
            found["added_cond_kwargs.text_embeds"] = "float (rows, channels)"
            found["added_cond_kwargs.time_ids"] = "float (rows, 6)"
        if self.control is not None:
            found["controlnet_cond"] = "float (rows, 3, height, width)"
        return found


def open_folder(path: Path) -> DenoiserFolder:
    """The denoiser of a pipeline's or a model's folder; raises RunError where there is none."""
    index = path / "model_index.json"
    listed = _read(index) if index.is_file() else {}
    named = [part for part in PARTS if part in listed]
    for part in (*named, *PARTS):
        if (path / part / "config.json").is_file():
            return _denoiser(path / part, part, path)
    if (path / "config.json").is_file():
        return _denoiser(path, "unet", path)
    raise RunError(
        f"{path} has no config.json, unet/config.json or transformer/config.json; give a folder "
        "that diffusers' save_pretrained wrote."
    )


def load_folder(folder: DenoiserFolder, conditions: Mapping[str, torch.Tensor]) -> nn.Module:
    """The model in evaluation mode, called as model(sample, timestep); without conditions, the
    diffusers model itself. Raises RunError for damaged weights and for conditions that do not fit.
    """
    from signmask.runtime.denoisers import Conditioned, ControlledUNet, FramesAsImages

    _check_conditions(folder, conditions)
    model = _load(folder.path, folder.class_name)
    part, frames = folder.part, 1
    if folder.control is not None:
        model, part = ControlledUNet(model, _load(folder.control, "ControlNetModel")), "model"
    if folder.class_name == "LatteTransformer3DModel":
        model, part = FramesAsImages(model), "model"
        frames = folder.config["video_length"]
    if not conditions and frames == 1:
        return model.eval()
    return Conditioned(model, conditions, part, frames).eval()


def read_conditions(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by keyword of a safetensors file, floats as float32, integers as int64; raises
    RunError where it cannot be read."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(path.read_bytes())
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; check the path.") from None
    except (SafetensorError, ValueError) as error:
        raise RunError(
            f"{path} is not an intact safetensors file ({error}); write the conditions with "
            "safetensors.torch.save_file."
        ) from None
    for name, tensor in tensors.items():
        if tensor.ndim == 0 or not tensor.shape[0]:
            raise RunError(f"condition '{name}' in {path} has no rows; give it one for each image.")
        if not tensor.isfinite().all():
            raise RunError(f"condition '{name}' in {path} holds NaN or infinity; compute it again.")
    return {
        name: tensor.float() if tensor.is_floating_point() else tensor.long()
        for name, tensor in sorted(tensors.items())
    }


def _check_conditions(folder: DenoiserFolder, conditions: Mapping[str, torch.Tensor]) -> None:
    expected = folder.conditions
    missing = [f"{name} {expected[name]}" for name in expected if name not in conditions]
    if missing:
        raise RunError(
            f"the {folder.class_name} of {folder.path} needs the condition(s) "
            f"{', '.join(missing)}; give them with --conditions FILE.safetensors."
        )
    unknown = sorted(set(conditions) - set(expected))
    if unknown:
        raise RunError(
            f"the {folder.class_name} of {folder.path} does not take the condition(s) "
            f"{', '.join(unknown)}; leave them out."
        )


def _denoiser(path: Path, part: str, home: Path) -> DenoiserFolder:
    config = _read(path / "config.json")
    name = config.get("_class_name")
    if name == "Transformer2DModel" and config.get("norm_type") == "ada_norm_zero":
        name = "DiTTransformer2DModel"  # its name before diffusers 0.29
    if name not in CLASSES:
        raise RunError(
            f"{path / 'config.json'} is of class {name}; give a folder of "
            f"{', '.join(CLASSES[:-1])} or {CLASSES[-1]}."
        )
    control = home / "controlnet"
    schedule = home / "scheduler" / "scheduler_config.json"
    return DenoiserFolder(
        path, part, name, config,
        control if (control / "config.json").is_file() else None,
        schedule if schedule.is_file() else None,
    )  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    return read_table(path, "save the model again with save_pretrained")


def _load(path: Path, class_name: str) -> nn.Module:
    import diffusers

    try:
        # safetensors only: weights in pickle form are refused
        model: nn.Module = getattr(diffusers, class_name).from_pretrained(
            path, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0].rstrip(".")
        raise RunError(
            f"diffusers cannot load a {class_name} from {path} ({line}); save it with "
            "save_pretrained(safe_serialization=True)."
        ) from None
    return model.eval()
