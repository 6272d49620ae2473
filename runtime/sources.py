"""Where a model comes from: bundled, a named architecture, an exported .pt2 file, a diffusers
folder or a torch module.

A `ModelSource` loads the fp32 model, for compiling and for comparing against it later; a program
remembers it with its SHA-256 (`Program.source`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from signmask.runtime.architectures import architecture
from signmask.runtime.architectures import names as architecture_names
from signmask.runtime.errors import MissingExtra, RunError
from signmask.runtime.files import read_table
from signmask.runtime.folders import load_folder, open_folder, read_conditions
from signmask.runtime.host import scheduler_config

# fp32 eps of a float32 sample (images, channels, height, width) at an integer timestep
FloatModel = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class ModelSource:
    """kind: "bundled", "architecture", "export", "folder" or "module"; path: name, file or folder;
    sha256: of the weights, or of the configuration that they are drawn for; relu: the activation is
    known to be ReLU; unfold: pixels per side that the model folds into channels (1: none);
    scheduler: diffusers configuration; conditions: safetensors file of the model's further inputs;
    weights: the model has any."""

    kind: str
    path: str
    sha256: str
    relu: bool
    unfold: int
    scheduler: Mapping[str, Any]
    conditions: Path | None = None
    weights: bool = True

    @property
    def name(self) -> str:
        """Short name: the bundled name, the class, or the file's or folder's own."""
        return Path(self.path).stem

    def to_json(self) -> dict[str, str]:
        """As `Program.source` keeps it: strings by name."""
        facts = {
            "kind": self.kind,
            "path": self.path,
            "sha256": self.sha256,
            "unfold": str(self.unfold),
        }
        if self.conditions is not None:
            facts["conditions"] = str(self.conditions)
        return facts

    def load(self) -> Any:
        """What the compiler takes: an `nn.Module` in eval mode, or the path of a .pt2 file.

        Raises RunError for weights or conditions that cannot be used.
        """
        if self.kind == "bundled":
            from signmask.reference.models import bundled

            return bundled.load(self.path)
        if self.kind == "architecture":
            from signmask.runtime.denoisers import build

            return build(architecture(self.path), self.weights, self._file_conditions())
        if self.kind == "folder":
            return load_folder(open_folder(Path(self.path)), self._file_conditions())
        return Path(self.path)

    def example_inputs(self, model: Any) -> Any:
        """Inputs to export what `load` gave with, or None where the compiler finds them itself;
        of a .pt2 file, its conditions by input name. Raises RunError for fractions where the file
        takes whole numbers."""
        from signmask.runtime.denoisers import Conditioned

        if isinstance(model, Conditioned):
            return model.example()
        conditions = self._file_conditions() if isinstance(model, Path) else {}
        if conditions:
            _require_whole(model, conditions)
        return conditions or None

    def float_model(self, model: Any) -> FloatModel:
        """numpy front of what `load` gave."""
        return float_model(model, self._file_conditions() if isinstance(model, Path) else {})

    def condition_digest(self, model: Any = None) -> str:
        """SHA-256 of all conditions, synthetic ones included, of what `load` gave or would give;
        empty without any."""
        from signmask.runtime.denoisers import Conditioned, digest_of, synthetic_conditions

        if isinstance(model, Conditioned):
            return digest_of(model.conditions)
        drawn = {}
        if self.kind == "architecture":
            drawn = synthetic_conditions(architecture(self.path))
        return digest_of(drawn | self._file_conditions())

    def _file_conditions(self) -> dict[str, Any]:
        return {} if self.conditions is None else read_conditions(self.conditions)


def resolve(
    model: str,
    scheduler: Path | None = None,
    conditions: Path | None = None,
    weights: bool = True,
) -> ModelSource:
    """The source that a MODEL argument names; raises RunError where nothing fits.

    scheduler: a diffusers scheduler_config.json that replaces the source's own. conditions: a
    safetensors file of further inputs by keyword. weights: False for an architecture alone.
    """
    if not model:
        raise RunError(
            "the model's name is empty; give a name that 'signmask models' lists, a .pt2 file or a "
            "diffusers folder."
        )
    _require_torch()
    from signmask.reference.models import bundled

    own = None if scheduler is None else _read_scheduler(scheduler)
    path = Path(model)
    named = model in architecture_names()
    if not weights and not named:
        raise RunError(
            f"'{model}' comes with weights; --no-weights is for the architectures that "
            "'signmask models' lists, drop it."
        )
    if named:
        found = _architecture_source(model, weights)
    elif model in bundled.names():
        if conditions is not None:
            raise RunError(f"'{model}' takes no conditions; drop --conditions.")
        relu = bundled.activation(model).lower() == "relu"
        digest = sha256_of([bundled.folder(model) / "weights.safetensors"])
        found = ModelSource("bundled", model, digest, relu, 2, default_scheduler())
    elif path.is_dir():
        folder = open_folder(path)
        found = ModelSource(
            kind="folder",
            path=str(path.resolve()),
            sha256=sha256_of(folder.files),
            relu=folder.config.get("act_fn") == "relu",
            unfold=1,
            scheduler=_read_scheduler(folder.scheduler)
            if folder.scheduler
            else default_scheduler(),
        )
    elif path.is_file() and path.suffix == ".pt2":
        digest = sha256_of([path])
        found = ModelSource("export", str(path.resolve()), digest, False, 1, default_scheduler())
    else:
        raise RunError(
            f"model '{model}' is neither bundled ({', '.join(bundled.names())}) nor a named "
            "architecture nor an existing .pt2 file or diffusers folder; check the path, or see "
            "'signmask models'."
        )
    given = None if conditions is None else conditions.resolve()
    return replace(found, scheduler=own or found.scheduler, conditions=given)


def reopen(source: Mapping[str, str], scheduler: Mapping[str, Any]) -> ModelSource:
    """The fp32 source of a program; raises RunError where it is gone or was altered."""
    kind, path = source.get("kind", ""), source.get("path", "")
    if kind not in ("bundled", "architecture", "export", "folder"):
        raise RunError("the program does not say where its fp32 model is; compile it from a file.")
    conditions = source.get("conditions")
    found = resolve(path, conditions=Path(conditions) if conditions else None)
    if found.kind != kind or found.sha256 != source.get("sha256"):
        raise RunError(
            f"the fp32 model '{path}' was altered since the program was compiled; compile it again."
        )
    if conditions and found.condition_digest() != source.get("conditions_sha256"):
        raise RunError(
            f"the conditions in '{conditions}' were altered since the program was compiled; "
            "compile it again."
        )
    return replace(found, scheduler=scheduler)


def float_model(model: Any, conditions: Mapping[str, Any] | None = None) -> FloatModel:
    """numpy front of an fp32 model: an `nn.Module`, or a .pt2 file, whose fixed batch is filled
    with repeats and whose `conditions` are given by input name. The front raises RunError where
    the model fails."""
    import torch
    from torch.utils._pytree import tree_leaves

    batch: int | None = None
    call = model
    if isinstance(model, Path):
        from signmask.compiler.archive import load_archive

        batch, call = _call_archive(load_archive(model), conditions or {})

    def run(sample: np.ndarray, timestep: int) -> np.ndarray:
        with torch.inference_mode():
            x = torch.from_numpy(np.asarray(sample, np.float32))
            size = batch or len(x)
            parts = []
            for part in x.split(size):
                padded = part[torch.arange(size) % len(part)]
                try:
                    out = call(padded, torch.tensor([timestep]))
                except RunError:
                    raise
                except Exception as error:  # a user's module raises anything
                    cause = (str(error).strip() or type(error).__name__).splitlines()[0]
                    raise RunError(
                        f"the fp32 model fails at timestep {timestep} ({cause.rstrip('.')}); make "
                        "it accept the samples and timesteps that it was compiled for."
                    ) from error
                leaves = tree_leaves(getattr(out, "sample", out))
                eps = next(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
                # Further channels are a learnt variance, which the sampler does not use.
                parts.append(eps[: len(part), : part.shape[1]].float())
            return np.asarray(torch.cat(parts).numpy())

    return run


def _call_archive(
    program: Any, conditions: Mapping[str, Any]
) -> tuple[int, Callable[[Any, Any], Any]]:
    """The fixed batch of an exported program and its f(sample, timestep), images in and out, of
    whatever types and shapes it was exported with; its further inputs are `conditions`."""
    import torch
    from torch.utils._pytree import tree_map_only, tree_unflatten

    from signmask.compiler.passes.capture import SAMPLE_NAMES

    examples = _examples(program)
    tensors = {name: value for name, value in examples.items() if isinstance(value, torch.Tensor)}
    first = next((name for name in SAMPLE_NAMES if name in tensors), next(iter(tensors)))
    module, flat = program.module(), {k.replace(".", "_"): v for k, v in conditions.items()}
    tokens = tensors[first].ndim == 3  # (N, tokens, C); here they are (N, C, 1, tokens)

    def call(x: Any, time: Any) -> Any:
        leaves: list[Any] = []
        for name, like in examples.items():
            if name == first:
                leaves.append((x.flatten(2).mT if tokens else x).to(like.dtype))
            elif name not in tensors:
                leaves.append(like)
            elif name in flat:
                leaves.append(flat[name].to(like.dtype))
            else:
                leaves.append(torch.zeros(like.shape, dtype=like.dtype) + time.to(like.dtype))
        args, kwargs = tree_unflatten(leaves, program.call_spec.in_spec)
        out = module(*args, **kwargs)
        return tree_map_only(torch.Tensor, lambda y: y.mT[:, :, None], out) if tokens else out

    return len(tensors[first]), call


def _require_whole(path: Path, conditions: Mapping[str, Any]) -> None:
    """Raise RunError for a condition with fractions where a .pt2 file takes integers."""
    import torch

    from signmask.compiler.archive import load_archive

    examples = _examples(load_archive(path))
    for name, given in conditions.items():
        like = examples.get(name.replace(".", "_"))
        if isinstance(like, torch.Tensor) and not like.is_floating_point():
            fractions = given[given != given.round()] if given.is_floating_point() else given[:0]
            if fractions.numel():
                raise RunError(
                    f"condition '{name}' holds {float(fractions.flatten()[0])}, and '{path}' takes "
                    "whole numbers there; give whole numbers."
                )


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


def _architecture_source(name: str, weights: bool) -> ModelSource:
    from signmask.runtime.denoisers import SEED

    found = architecture(name)
    facts = [*found.parts.items()], found.lora_rank, found.merged, SEED
    return ModelSource(
        kind="architecture",
        path=name,
        sha256=hashlib.sha256(json.dumps(facts).encode()).hexdigest(),
        relu=False,
        unfold=1,
        scheduler=dict(found.scheduler),
        weights=weights,
    )


def _read_scheduler(path: Path) -> dict[str, Any]:
    remedy = "give the scheduler_config.json of a diffusers pipeline"
    config = read_table(path, remedy)
    if "_class_name" not in config:
        raise RunError(f"{path} names no scheduler class; {remedy}.")
    return {k: v for k, v in config.items() if k == "_class_name" or not k.startswith("_")}


def _examples(program: Any) -> dict[str, Any]:
    """Inputs of an exported program in order, by name: tensors without values, of the shapes and
    types that it is fixed to, and constants."""
    from torch.export.graph_signature import ConstantArgument, InputKind

    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    return {
        spec.arg.name: spec.arg.value
        if isinstance(spec.arg, ConstantArgument)
        else nodes[spec.arg.name].meta["val"]
        for spec in program.graph_signature.input_specs
        if spec.kind == InputKind.USER_INPUT
    }
