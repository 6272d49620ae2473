"""A compiled model in the place of a diffusers denoiser: a U-Net or a transformer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers.configuration_utils import FrozenDict
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import nn

from signmask.hw.spec.config import HardwareConfig, preset
from signmask.hw.spec.container import Program
from signmask.runtime.backend import BACKENDS, Backend, open_backend
from signmask.runtime.build import CALIBRATION_IMAGES, Progress, build_program
from signmask.runtime.denoisers import Conditioned, digest_of, flatten, sample_shape
from signmask.runtime.errors import RunError
from signmask.runtime.host import input_codes, predicted_noise, scheduler_config
from signmask.runtime.presets import knobs_for
from signmask.runtime.session import RefreshPlan
from signmask.runtime.sources import ModelSource, default_scheduler


class CompiledModel(nn.Module):
    """Executes a program step by step with the interface of a diffusers denoiser.

    Use it as `pipe.unet` or `pipe.transformer` of a pipeline: the schedule must have the program's
    timesteps and be walked from its first one, whose call is a dense step that forgets all earlier
    state. Conditions (text, class) are constants of the program: what a pipeline passes must equal
    them. `cycles` and `traffic` count what an accelerator spent since that step.

    program: what to run. backend: "reference", "gpu", "sim", "rtl" or an object with the `Backend`
    interface.
    config: the diffusers configuration of the model it replaces, or None.
    """

    def __init__(
        self,
        program: Program,
        backend: str | Backend = "sim",
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(backend, str) and backend not in BACKENDS:
            raise RunError(f"unknown backend '{backend}'; choose one of {', '.join(BACKENDS)}.")
        network = program.network
        source = network.sources[network.input]
        self.program = program
        self.config = FrozenDict(
            config
            or {
                "in_channels": source.real_channels,
                "out_channels": int(program.tensors[network.output_scale].size),
                "sample_size": (source.height, source.width),
            }
        )
        self.cycles = 0
        self.traffic: Counter[str] = Counter()
        self._backend = open_backend(backend, program) if isinstance(backend, str) else backend
        self._index_of = {timestep: i for i, timestep in enumerate(network.timesteps)}
        self._plan = RefreshPlan(program)
        self._last: int | None = None

    @property
    def dtype(self) -> torch.dtype:
        """Type of samples in and out of the host."""
        return torch.float32

    @property
    def device(self) -> torch.device:
        """Samples are exchanged on the CPU."""
        return torch.device("cpu")

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        return_dict: bool = True,
        **conditions: Any,
    ) -> UNet2DOutput | tuple[torch.Tensor]:
        """Predicted noise of `sample` (batch, channels, height, width) at a timestep of the
        schedule; `conditions` by the keywords of the model that was compiled.

        Raises RunError for another batch, shape, timestep or condition than the program was
        compiled for, and for a schedule that does not start at its first timestep.
        """
        network = self.program.network
        self._check_conditions(flatten(conditions))
        index = self._step_of(timestep)
        if not isinstance(sample, torch.Tensor) or sample.ndim != 4:
            found = getattr(sample, "shape", type(sample).__name__)
            raise RunError(
                f"the sample is {found}; give a tensor (batch, channels, height, width)."
            )
        if sample.shape[0] != self.program.batch:
            raise RunError(
                f"the sample has batch {sample.shape[0]}, '{network.name}' was compiled "
                f"for batch {self.program.batch}; compile with batch={max(sample.shape[0], 1)}."
            )
        codes = input_codes(network, sample.detach().cpu().double().numpy())
        if index == 0:
            self._plan, self.cycles, self.traffic = RefreshPlan(self.program), 0, Counter()
        elif self._last is None or index <= self._last:
            raise RunError(
                f"timestep {network.timesteps[index]} cannot follow "
                f"{'nothing' if self._last is None else network.timesteps[self._last]}; start at "
                f"the schedule's first timestep, {network.timesteps[0]}, and walk it in order."
            )
        dense = self._plan.dense(index)
        step = self._backend.dense_step if dense else self._backend.delta_step
        result = step(index, codes)
        self._plan.executed(dense, result.counters)
        self._last = index
        self.cycles += result.cycles
        self.traffic.update(result.traffic)
        eps = predicted_noise(network, self.program.tensors, index, result.accumulators)
        noise = torch.from_numpy(eps).to(sample.device, sample.dtype)
        return UNet2DOutput(sample=noise) if return_dict else (noise,)

    def _check_conditions(self, conditions: Mapping[str, torch.Tensor]) -> None:
        compiled = self.program.source.get("conditions_sha256", "")
        if conditions and digest_of(conditions) != compiled:
            raise RunError(
                f"the condition(s) {', '.join(conditions)} are not those that "
                f"'{self.program.network.name}' was compiled for; compile the model again with "
                "conditions={...} equal to what the pipeline passes."
            )

    def _step_of(self, timestep: torch.Tensor | float) -> int:
        try:
            values = torch.as_tensor(timestep).reshape(-1).unique().tolist()
        except (TypeError, ValueError, RuntimeError):
            values = [timestep]
        index = self._index_of.get(values[0]) if len(values) == 1 else None
        if index is None:
            schedule = self.program.network.timesteps
            raise RunError(
                f"timestep {values} is not one of the {len(schedule)} timesteps "
                f"{schedule[0]} ... {schedule[-1]} that the program was compiled for; use the same "
                "scheduler and number of steps as for compiling."
            )
        return index


def compile(
    model: nn.Module | ModelSource,
    config: str | HardwareConfig = "nano",
    dataflow: str = "mask",
    steps: int = 50,
    scheduler: Any = None,
    backend: str = "sim",
    batch: int = 1,
    paper: bool = False,
    progress: Progress | None = None,
    conditions: Mapping[str, Any] | None = None,
    calibration_images: int = CALIBRATION_IMAGES,
    **knobs: Any,
) -> CompiledModel:
    """Compile a torch module for the accelerator and open it on a backend.

    model: a module called as model(sample, timestep), such as a diffusers `UNet2DModel`, or a
    `sources.resolve`d model. config: preset name or configuration. scheduler: the diffusers DDIM or
    DDPM scheduler of the pipeline (default: DDIM, linear, trailing). conditions: further inputs of
    a module by keyword, nested as diffusers takes them, such as encoder_hidden_states or
    added_cond_kwargs. calibration_images: trajectories sampled for statistics. knobs: fields of
    `Knobs`, such as mask_bits=2. Raises RunError, ConfigError or CompileError with one sentence.
    """
    steps, batch = _whole("steps", steps, 1), _whole("batch", batch, 1)
    calibration_images = _whole("calibration_images", calibration_images, 0)
    _require(isinstance(config, str | HardwareConfig), "config", config, "a preset's name")
    hardware = preset(config) if isinstance(config, str) else config
    known = backend in BACKENDS if isinstance(backend, str) else hasattr(backend, "dense_step")
    _require(known, "backend", backend, f"one of {', '.join(BACKENDS)}")
    _require(
        isinstance(model, nn.Module | ModelSource), "model", model,
        "a torch.nn.Module, or what signmask.runtime.sources.resolve makes of a name or path",
    )  # fmt: skip
    named = conditions is None or isinstance(conditions, Mapping)
    _require(named, "conditions", conditions, "a dict of tensors by keyword")
    if isinstance(model, ModelSource):
        source, module = model, None
    else:
        sample_shape(model)
        source, module = module_source(model), model
    if scheduler is not None:
        right = isinstance(getattr(scheduler, "config", None), Mapping)
        _require(right, "scheduler", scheduler, "a diffusers DDIMScheduler or DDPMScheduler")
        source = replace(source, scheduler=scheduler_config(scheduler))
    chosen, hardware = knobs_for(dataflow, hardware, source.relu, paper, knobs, spelling=str)
    own = getattr(module, "config", None)
    config_of_module = dict(own) if isinstance(own, Mapping) else vars(own) if own else None
    if conditions:
        if module is None:
            raise RunError("a resolved source has conditions of its own; drop conditions=.")
        given = flatten(conditions)
        for name, tensor in given.items():
            _require(tensor.ndim and len(tensor), name, tensor, "one row for each image")
        module = Conditioned(module, given).eval()
    program = build_program(
        source, hardware, chosen, steps, batch, module, progress, images=calibration_images
    )
    return CompiledModel(program, backend, config_of_module)


def _whole(name: str, value: Any, least: int) -> int:
    """An argument as a whole number; raises RunError."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool) and value >= least
    _require(whole, name, value, f"a whole number from {least}")
    return int(value)


def _require(right: Any, name: str, value: Any, wanted: str) -> None:
    """Raise RunError unless an argument is what is wanted."""
    if not right:
        shown = repr(value) if isinstance(value, str | int | float) else type(value).__name__
        raise RunError(f"{name} is {shown}; give {wanted}.")


def module_source(model: nn.Module) -> ModelSource:
    """Source record of a module in memory: it has no file to compare against later."""
    activations = {type(m) for m in model.modules() if isinstance(m, (nn.ReLU, nn.SiLU))}
    return ModelSource(
        kind="module",
        path=type(model).__name__,
        sha256="",
        relu=activations == {nn.ReLU},
        unfold=1,
        scheduler=default_scheduler(),
    )
