"""Where a model comes from: bundled, an exported .pt2 file, a diffusers folder or a torch module.

A `ModelSource` loads the fp32 model, for compiling and for comparing against it later; a program
remembers it with its SHA-256 (`Program.source`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from signmask.runtime.errors import MissingExtra, RunError
from signmask.runtime.host import scheduler_config

# fp32 eps of a float32 sample (images, channels, height, width) at an integer timestep
FloatModel = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class ModelSource:
    """kind: "bundled", "export", "folder" or "module"; path: name, file or folder; sha256: of the
    weights; relu: the activation is known to be ReLU; unfold: pixels per side that the model folds
    into channels (1: none); scheduler: diffusers configuration."""

    kind: str
    path: str
    sha256: str
    relu: bool
    unfold: int
    scheduler: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Short name: the bundled name, the class, or the file's or folder's own."""
        return Path(self.path).stem

    def to_json(self) -> dict[str, str]:
        """As `Program.source` keeps it: strings by name."""
        return {
            "kind": self.kind,
            "path": self.path,
            "sha256": self.sha256,
            "unfold": str(self.unfold),
        }

    def load(self) -> Any:
        """What the compiler takes: an `nn.Module` in eval mode, or the path of a .pt2 file."""
        if self.kind == "bundled":
            from signmask.reference.models import bundled

            return bundled.load(self.path)
        if self.kind == "folder":
            return _load_folder(Path(self.path))
        return Path(self.path)


def resolve(model: str, scheduler: Path | None = None) -> ModelSource:
    """The source that a MODEL argument names; raises RunError where nothing fits.

    scheduler: a diffusers scheduler_config.json that replaces the source's own.
    """
    _require_torch()
    from signmask.reference.models import bundled

    own = None if scheduler is None else _read_scheduler(scheduler)
    path = Path(model)
    if model in bundled.names():
        relu = bundled.activation(model).lower() == "relu"
        weights = bundled.folder(model) / "weights.safetensors"
        return ModelSource(
            "bundled", model, sha256_of([weights]), relu, 2, own or default_scheduler()
        )
    if path.is_dir():
        unet, schedule = _folder_parts(path)
        config = json.loads((unet / "config.json").read_text())
        files = sorted(unet.glob("*.safetensors"))
        return ModelSource(
            kind="folder",
            path=str(path.resolve()),
            sha256=sha256_of([unet / "config.json", *files]),
            relu=config.get("act_fn") == "relu",
            unfold=1,
            scheduler=own or (_read_scheduler(schedule) if schedule else default_scheduler()),
        )
    if path.is_file() and path.suffix == ".pt2":
        return ModelSource(
            "export", str(path.resolve()), sha256_of([path]), False, 1, own or default_scheduler()
        )
    raise RunError(
        f"model '{model}' is neither bundled ({', '.join(bundled.names())}) nor an existing .pt2 "
        "file or diffusers folder; check the name or the path."
    )


def reopen(source: Mapping[str, str], scheduler: Mapping[str, Any]) -> ModelSource:
    """The fp32 source of a program; raises RunError where it is gone or was altered."""
    kind, path = source.get("kind", ""), source.get("path", "")
    if kind not in ("bundled", "export", "folder"):
        raise RunError("the program does not say where its fp32 model is; compile it from a file.")
    found = resolve(path)
    if found.kind != kind or found.sha256 != source.get("sha256"):
        raise RunError(
            f"the fp32 model '{path}' was altered since the program was compiled; compile it again."
        )
    return ModelSource(kind, found.path, found.sha256, found.relu, found.unfold, scheduler)


def float_model(model: Any) -> FloatModel:
    """numpy front of an fp32 model: an `nn.Module`, or a .pt2 file whose fixed batch is
    filled with repeats."""
    import torch

    batch: int | None = None
    time_like = torch.zeros(1, dtype=torch.int64)
    if isinstance(model, Path):
        from signmask.compiler.archive import load_archive

        program = load_archive(model)
        values = _example_values(program)
        batch = int(values[0].shape[0])
        if len(values) > 1:
            time_like = torch.zeros(tuple(values[1].shape), dtype=values[1].dtype)
        model = program.module()

    def run(sample: np.ndarray, timestep: int) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(np.asarray(sample, np.float32))
            size = batch or len(x)
            parts = []
            for part in x.split(size):
                padded = part[torch.arange(size) % len(part)]
                out = model(padded, time_like + timestep)
                eps = getattr(out, "sample", out)
                eps = eps[0] if isinstance(eps, tuple) else eps
                parts.append(eps[: len(part)])
            return np.asarray(torch.cat(parts).numpy())

    return run


def sha256_of(paths: list[Path]) -> str:
    """SHA-256 over the contents of the files, in order."""
    digest = hashlib.sha256()
    try:
        for path in paths:
            digest.update(path.read_bytes())
    except OSError as error:
        raise RunError(
            f"cannot read {error.filename}: {error.strerror}; check the installation or the path."
        ) from None
    return digest.hexdigest()


def _require_torch() -> None:
    try:
        import diffusers  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtra(str(error.name), "torch", "Reading a model") from None


def default_scheduler() -> dict[str, Any]:
    """Configuration of DDIM with linear betas and trailing spacing, as the bundled models use."""
    from signmask.reference.models.unet import scheduler

    return scheduler_config(scheduler())


def _folder_parts(path: Path) -> tuple[Path, Path | None]:
    """Folder of the U-Net and the scheduler's configuration file, of a pipeline or model folder."""
    for unet in (path / "unet", path):
        if (unet / "config.json").is_file():
            schedule = path / "scheduler" / "scheduler_config.json"
            return unet, schedule if schedule.is_file() else None
    raise RunError(
        f"{path} has no config.json or unet/config.json; give a folder that diffusers' "
        "save_pretrained wrote."
    )


def _read_scheduler(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text())
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; check the path.") from None
    except ValueError:
        raise RunError(
            f"{path} is not JSON; give the scheduler_config.json of a diffusers pipeline."
        ) from None
    if not isinstance(config, dict) or "_class_name" not in config:
        raise RunError(
            f"{path} names no scheduler class; give the scheduler_config.json of a pipeline."
        )
    return {k: v for k, v in config.items() if k == "_class_name" or not k.startswith("_")}


def _load_folder(path: Path) -> Any:
    from diffusers import UNet2DModel

    unet, _ = _folder_parts(path)
    try:
        # safetensors only: weights in pickle form are refused
        model = UNet2DModel.from_pretrained(unet, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        line = str(error).strip().splitlines()[0].rstrip(".")
        raise RunError(
            f"diffusers cannot load a UNet2DModel from {unet} ({line}); save it with "
            "save_pretrained(safe_serialization=True)."
        ) from None
    return model.eval()


def _example_values(program: Any) -> list[Any]:
    """Shapes and dtypes that an exported program's inputs were fixed to, in order."""
    names = set(program.graph_signature.user_inputs)
    return [
        node.meta["val"]
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in names
    ]
