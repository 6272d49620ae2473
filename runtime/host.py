"""What the host computes between two steps of the accelerator (`docs/numerics.md`, "Host").

Everything is float64 and elementwise; a `HostLog` records each operation with its calls, elements
and seconds, so that no work is hidden outside the accelerator.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from signmask.hw.spec.container import Program
from signmask.hw.spec.network import Network
from signmask.runtime.errors import MissingExtra, RunError

SCHEDULERS = ("DDIMScheduler", "DDPMScheduler")
PREDICTIONS = ("epsilon", "sample", "v_prediction")
VARIANCES = ("fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log")
# What diffusers and torch raise for a configuration with wrong values.
FAULTS = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RuntimeError)


@dataclass
class HostOperation:
    """Accumulated cost of one kind of host work."""

    name: str
    calls: int = 0
    elements: int = 0
    seconds: float = 0.0


@dataclass
class HostLog:
    """Cost of host work by name, in order of first use."""

    operations: dict[str, HostOperation] = field(default_factory=dict)

    @contextmanager
    def record(self, name: str, elements: int) -> Iterator[None]:
        """Time the enclosed block as one call of `name` on `elements` numbers."""
        start = time.perf_counter()
        try:
            yield
        finally:
            operation = self.operations.setdefault(name, HostOperation(name))
            operation.calls += 1
            operation.elements += elements
            operation.seconds += time.perf_counter() - start

    def to_json(self) -> list[dict[str, Any]]:
        """One dictionary per operation."""
        return [
            {
                "name": operation.name,
                "calls": operation.calls,
                "elements": operation.elements,
                "seconds": round(operation.seconds, 6),
            }
            for operation in self.operations.values()
        ]


def image_bits(seed: int, image: int) -> np.random.Philox:
    """Philox bit stream of an image, keyed by (seed, image)."""
    if not 0 <= seed < 2**32:
        raise RunError(f"seed is {seed}; use a whole number from 0 to 2**32 - 1.")
    return np.random.Philox(key=np.array([seed, image], np.uint64))


def noise(seed: int, images: int, shape: tuple[int, int, int]) -> np.ndarray:
    """Standard normal float64 (images, channels, height, width), `shape` being the last three.

    Image i is drawn from NumPy's Philox generator with key (seed, i) in (channels, height, width)
    order, so that it does not depend on how many images are drawn.
    """
    if images < 1:
        raise RunError(f"the number of images is {images}; use at least 1.")
    bits = (image_bits(seed, image) for image in range(images))
    return np.stack([np.random.Generator(b).standard_normal(shape) for b in bits])


def input_codes(network: Network, sample: np.ndarray) -> np.ndarray:
    """int8 codes (batch, height, width, channels) of a float sample (batch, channels, h, w)."""
    source = network.sources[network.input]
    expected = (source.real_channels, source.height, source.width)
    if sample.ndim != 4 or sample.shape[1:] != expected:
        raise RunError(
            f"the sample has shape {tuple(sample.shape)} where the program '{network.name}' takes "
            f"(batch, {', '.join(map(str, expected))}); compile a program for that shape."
        )
    if not np.isfinite(sample).all():
        raise RunError(
            f"the sample given to '{network.name}' contains NaN or infinity; check the weights and "
            "the scheduler."
        )
    spread = source.spread
    values = np.rint(sample / source.scale) + source.zero * spread
    values = np.clip(values, -128 * spread, 127 * spread).astype(np.int64)
    codes = np.concatenate([(values + copy) // spread for copy in range(spread)], axis=1)
    codes = codes.astype(np.int8)
    return np.ascontiguousarray(codes.transpose(0, 2, 3, 1))


def predicted_noise(
    network: Network, tensors: Mapping[str, np.ndarray], index: int, accumulators: np.ndarray
) -> np.ndarray:
    """float64 eps (batch, channels, height, width) of the int32 accumulators of step `index`: what
    the network predicts, less channels beyond the sample's (a learned variance)."""
    source = network.sources[network.input]
    return prediction(network, tensors, index, accumulators)[:, : source.real_channels]


def prediction(
    network: Network, tensors: Mapping[str, np.ndarray], index: int, accumulators: np.ndarray
) -> np.ndarray:
    """float64 (batch, channels, height, width), every channel that the network predicts; patches of
    pixels are put in their places. Raises RunError for NaN."""
    source, patch = network.sources[network.input], network.patch
    scale = tensors[network.output_scale].astype(np.float64)
    offset = tensors[network.output_table][index].astype(np.float64)
    eps = accumulators.astype(np.float64) * scale + offset
    rows, columns = source.height // patch, source.width // patch
    split = eps.reshape(len(eps), rows, columns, patch, patch, -1).transpose(0, 5, 1, 3, 2, 4)
    eps = split.reshape(len(eps), -1, source.height, source.width)
    if not np.isfinite(eps).all():
        raise RunError(
            f"step {index} of '{network.name}' gave NaN or infinity; its output scale is damaged, "
            "compile the model again."
        )
    return eps


class HostScheduler:
    """A diffusers DDIM or DDPM scheduler driven in float64.

    Variance noise of DDPM comes from one torch generator per image, seeded by the next number of
    that image's Philox generator, so that an image does not depend on its batch.
    """

    def __init__(self, config: Mapping[str, Any], steps: int) -> None:
        """`config` is a scheduler's configuration with its `_class_name`; raises RunError where it
        names another class or holds values that make no schedule, or MissingExtra without
        diffusers."""
        self._scheduler = make_scheduler(config)
        self.stochastic = type(self._scheduler).__name__ == "DDPMScheduler"
        if not 1 <= steps <= self._scheduler.config.num_train_timesteps:
            raise RunError(
                f"{steps} steps do not fit a schedule of "
                f"{self._scheduler.config.num_train_timesteps} training timesteps; choose 1 to "
                f"{self._scheduler.config.num_train_timesteps}."
            )
        try:
            self._scheduler.set_timesteps(steps)
            self.timesteps = tuple(int(t) for t in self._scheduler.timesteps)
        except FAULTS as error:
            raise RunError(
                f"the noise schedule cannot make {steps} timesteps ({_cause(error)}); correct its "
                "configuration."
            ) from error
        # Some values only fail when a step is taken.
        nothing = np.zeros((1, 1, 1, 1))
        self.step(0, nothing, nothing, self.generators(0, [0]) if self.stochastic else None)

    @classmethod
    def of_program(cls, program: Program) -> HostScheduler:
        """The program's scheduler; raises RunError where its timesteps are not the network's."""
        scheduler = cls(program.scheduler, program.network.steps)
        if scheduler.timesteps != tuple(program.network.timesteps):
            raise RunError(
                f"the scheduler's timesteps {_short(scheduler.timesteps)} are not those that "
                f"'{program.network.name}' was compiled for ({_short(program.network.timesteps)}); "
                "compile it again with this scheduler."
            )
        return scheduler

    def generators(self, seed: int, images: Iterable[int]) -> list[Any]:
        """One fresh torch generator per listed image, for the variance noise."""
        import torch

        # Seeded from a jumped stream: independent of the initial noise, whatever its shape.
        seeds = (image_bits(seed, image).jumped().random_raw() for image in images)
        return [torch.Generator().manual_seed(value >> 1) for value in seeds]

    def initial(self, sample: np.ndarray) -> np.ndarray:
        """Noise scaled to the schedule's starting level."""
        return sample * float(self._scheduler.init_noise_sigma)

    def step(
        self, index: int, eps: np.ndarray, sample: np.ndarray, generators: list[Any] | None = None
    ) -> np.ndarray:
        """The sample after step `index`, float64, same shape as `sample`."""
        import torch

        options: dict[str, Any] = {"generator": generators} if self.stochastic else {}
        try:
            result = self._scheduler.step(
                torch.from_numpy(np.ascontiguousarray(eps)),
                self.timesteps[index],
                torch.from_numpy(np.ascontiguousarray(sample)),
                **options,
            )
        except FAULTS as error:
            raise RunError(
                f"the noise schedule fails at step {index} ({_cause(error)}); correct its "
                "configuration."
            ) from error
        return np.asarray(result.prev_sample.numpy())


def make_scheduler(config: Mapping[str, Any]) -> Any:
    """A diffusers scheduler from `Program.scheduler`; raises RunError for another class than DDIM
    or DDPM, a learnt variance or values that make no schedule, or MissingExtra without diffusers.
    """
    try:
        import diffusers
    except ImportError:
        raise MissingExtra("diffusers", "torch", "The host's noise schedule") from None
    name = config.get("_class_name", "DDIMScheduler")
    if name not in SCHEDULERS:
        raise RunError(
            f"scheduler '{name}' is not supported on the host; use {' or '.join(SCHEDULERS)}."
        )
    _check(name, config)
    try:
        return getattr(diffusers, name).from_config(dict(config))
    except FAULTS as error:
        raise RunError(
            f"the noise schedule '{name}' cannot be set up ({_cause(error)}); correct its "
            "configuration."
        ) from error


def scheduler_config(scheduler: Any) -> dict[str, Any]:
    """JSON form of a diffusers scheduler, as `Program.scheduler` keeps it."""
    config = {k: v for k, v in dict(scheduler.config).items() if not k.startswith("_")}
    config = {k: v.tolist() if hasattr(v, "tolist") else v for k, v in config.items()}
    return {"_class_name": type(scheduler).__name__, **config}


def _check(name: str, config: Mapping[str, Any]) -> None:
    """Raise RunError for values that diffusers accepts until a step is taken, or that it explains
    badly."""
    variance = config.get("variance_type")
    if name == "DDPMScheduler" and variance in ("learned", "learned_range"):
        raise RunError(
            f"the noise schedule '{name}' has variance_type '{variance}', and the host samples "
            "without a learnt variance; set variance_type to 'fixed_small', or use DDIMScheduler."
        )
    choices: dict[str, tuple[str, ...]] = {"prediction_type": PREDICTIONS}
    if name == "DDPMScheduler":
        choices["variance_type"] = VARIANCES
    for key, known in choices.items():
        value = config.get(key, known[0])
        if value not in known:
            raise RunError(
                f"the noise schedule '{name}' has {key} {value!r}; choose one of "
                f"{', '.join(known)}."
            )
    training = config.get("num_train_timesteps", 1000)
    if not isinstance(training, int) or isinstance(training, bool) or training < 1:
        raise RunError(
            f"the noise schedule '{name}' has num_train_timesteps {training!r}; give a whole "
            "number from 1."
        )
    for key in ("beta_start", "beta_end"):
        value = config.get(key, 0.01)
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise RunError(
                f"the noise schedule '{name}' has {key} {value!r}; give a number from 0 to below 1."
            )


def _cause(error: Exception) -> str:
    """What an exception says, on one line without a full stop."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")


def _short(timesteps: tuple[int, ...]) -> str:
    numbers = list(timesteps)
    return str(numbers) if len(numbers) <= 4 else f"{numbers[0]}, {numbers[1]}, ..., {numbers[-1]}"
