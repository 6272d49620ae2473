"""A program loaded on a backend: sampling, refresh decisions, digests and counters."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from signmask.hw.spec.container import Program
from signmask.runtime.backend import BACKENDS, Backend, StepResult, open_backend
from signmask.runtime.errors import RunError
from signmask.runtime.host import (
    HostLog,
    HostScheduler,
    input_codes,
    noise,
    predicted_noise,
)

Progress = Callable[[int, int], None]  # steps done, steps in all


@runtime_checkable
class Closeable(Protocol):
    """A backend that holds a process or files."""

    def close(self) -> None:
        """Give them back."""


@dataclass
class StepRecord:
    """One step of the schedule, summed over the batches of a run."""

    index: int
    timestep: int
    dense: int = 0  # batches that executed it as a dense step
    delta: int = 0  # batches that executed it as a difference
    cycles: int = 0
    counters: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, result: StepResult, dense: bool) -> None:
        """Accumulate one batch."""
        self.dense += dense
        self.delta += not dense
        self.cycles += result.cycles
        for name, counts in result.counters.items():
            self.counters.setdefault(name, Counter()).update(counts)


@dataclass(frozen=True)
class SampleResult:
    """A sampling run.

    images: float64 (images, channels, height, width), the last sample, before any unfolding.
    trajectory: float32 (steps, images, channels, height, width), the sample after each step, or
    None. digests: SHA-256 of each image's output accumulators. busy (cycles by unit) and traffic
    (bytes by kind) are empty and cycles None on an untimed backend.
    """

    images: np.ndarray
    trajectory: np.ndarray | None
    digests: tuple[str, ...]
    steps: tuple[StepRecord, ...]
    cycles: int | None
    busy: Mapping[str, int]
    traffic: Mapping[str, int]
    host: HostLog
    seed: int = 0

    @property
    def output_sha256(self) -> str:
        """SHA-256 over the concatenated image digests."""
        return hashlib.sha256(b"".join(bytes.fromhex(d) for d in self.digests)).hexdigest()

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """Counters per encoding or source, and of the streams, summed over the steps."""
        total: dict[str, Counter[str]] = {}
        for step in self.steps:
            for name, counts in step.counters.items():
                total.setdefault(name, Counter()).update(counts)
        return {name: dict(counts) for name, counts in total.items()}


class RefreshPlan:
    """Decides before each step whether it is dense: the first, every R steps, or on drift.

    Drift is the fraction of elements, over all encodings in a mask with more than one segment,
    whose segment changed in the step before. It is taken over the whole batch, so a program with
    `refresh_drift` is the one case in which an image's result can depend on its neighbours.
    """

    def __init__(self, program: Program) -> None:
        network = program.network
        self._knobs = network.knobs
        self._segmented = {
            name: program.batch * encoding.channels * encoding.height * encoding.width
            for name, encoding in network.encodings.items()
            if encoding.mode == "mask" and program.tensors[encoding.breaks].size
        }
        self._since = 0
        self._drift = 0.0

    def dense(self, index: int) -> bool:
        """Whether step `index` is to be a dense step."""
        if self._knobs.dataflow == "dense" or index == 0:
            return True
        every = self._knobs.refresh_every
        if every and self._since >= every:
            return True
        return 0 < self._knobs.refresh_drift < self._drift

    def executed(self, dense: bool, counters: Mapping[str, Mapping[str, int]]) -> None:
        """Note what the step did."""
        self._since = 1 if dense else self._since + 1
        self._drift = 0.0
        if not dense and self._segmented:
            changed = sum(
                counters.get(name, {}).get("segment_changes", 0) for name in self._segmented
            )
            self._drift = changed / sum(self._segmented.values())


class Session:
    """Samples images with a compiled program.

    program: what to run. backend: "reference" (untimed golden model), "gpu" (the same in Triton
    kernels), "sim" (cycle-level simulator), "rtl" (Verilator), or an object with the `Backend`
    interface. Raises RunError for an unknown backend or a scheduler that does not fit the program.
    """

    def __init__(self, program: Program, backend: str | Backend = "reference") -> None:
        if isinstance(backend, str) and backend not in BACKENDS:
            raise RunError(f"unknown backend '{backend}'; choose one of {', '.join(BACKENDS)}.")
        self.program = program
        self.backend: Backend
        self.scheduler = HostScheduler.of_program(program)
        self.backend = self._open(backend) if isinstance(backend, str) else backend

    def close(self) -> None:
        """Give back what the backend holds, such as a process; nothing can be sampled after it."""
        if isinstance(self.backend, Closeable):
            self.backend.close()

    def _open(self, name: str) -> Backend:
        """The backend of that name, where the program fits it and this machine."""
        try:
            return open_backend(name, self.program)
        except (ValueError, LookupError, ArithmeticError, MemoryError) as error:
            cause = str(error).split(";")[0].rstrip(".")
            raise RunError(
                f"backend '{name}' cannot execute program '{self.program.network.name}' ({cause}); "
                "compile it again."
            ) from error

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of a sample."""
        source = self.program.network.sources[self.program.network.input]
        return source.real_channels, source.height, source.width

    def sample(
        self,
        images: int = 1,
        seed: int = 0,
        progress: Progress | None = None,
        trajectory: bool = False,
        first: int | None = None,
    ) -> SampleResult:
        """Sample `images` images; a last partial batch is filled with repeats that are dropped.

        first: stop after so many steps of the schedule; the images are then still noisy. Raises
        RunError for a bad count or seed, and for NaN or infinity on the way.
        """
        program, network = self.program, self.program.network
        if images < 1:
            raise RunError(f"the number of images is {images}; use at least 1.")
        if images % network.images:
            raise RunError(
                f"'{network.name}' makes {network.images} images at once (frames of a video, or "
                f"images with conditions of their own) and {images} are asked for; ask for "
                f"{-(-images // network.images) * network.images} images."
            )
        steps = network.steps if first is None else first
        if not 1 <= steps <= network.steps:
            raise RunError(
                f"the first {steps} steps are asked for and the program has {network.steps}; "
                f"choose 1 to {network.steps}."
            )
        log = HostLog()
        with log.record("noise", images * int(np.prod(self.shape))):
            start = self.scheduler.initial(noise(seed, images, self.shape))
        records = tuple(StepRecord(i, t) for i, t in enumerate(network.timesteps[:steps]))
        hashes = [hashlib.sha256() for _ in range(images)]
        final = np.empty_like(start)
        path = np.empty((steps, *start.shape), np.float32) if trajectory else None
        busy: Counter[str] = Counter()
        traffic: Counter[str] = Counter()
        batches = range(0, images, program.batch)
        for number, at in enumerate(batches):
            count = min(program.batch, images - at)
            # np.resize repeats the images that are there until the batch is full.
            x = np.resize(start[at : at + count], (program.batch, *self.shape))
            generators = self._generators(seed, at, count)
            plan = RefreshPlan(program)
            for index, record in enumerate(records):
                with log.record("input codes", x.size):
                    codes = input_codes(network, x)
                dense = plan.dense(index)
                step = self.backend.dense_step if dense else self.backend.delta_step
                try:
                    result = step(index, codes)
                except (ArithmeticError, MemoryError) as error:
                    cause = str(error).split(";")[0].rstrip(".")
                    raise RunError(
                        f"step {index} of '{network.name}' failed ({cause}); compile it again."
                    ) from error
                self._check(index, result)
                plan.executed(dense, result.counters)
                record.add(result, dense)
                busy.update(result.busy)
                traffic.update(result.traffic)
                accumulators = np.ascontiguousarray(result.accumulators, "<i4")
                for image in range(count):
                    hashes[at + image].update(accumulators[image].tobytes())
                with log.record("predicted noise", x.size):
                    eps = predicted_noise(network, program.tensors, index, accumulators)
                with log.record("scheduler step", x.size):
                    x = self.scheduler.step(index, eps, x, generators)
                if path is not None:
                    path[index, at : at + count] = x[:count]
                if progress:
                    progress(number * steps + index + 1, len(batches) * steps)
            final[at : at + count] = x[:count]
        cycles = sum(record.cycles for record in records)
        return SampleResult(
            images=final,
            trajectory=path,
            digests=tuple(h.hexdigest() for h in hashes),
            steps=records,
            cycles=cycles or None,
            busy=dict(busy),
            traffic=dict(traffic),
            host=log,
            seed=seed,
        )

    def _generators(self, seed: int, first: int, count: int) -> list[object] | None:
        if not self.scheduler.stochastic:
            return None
        return self.scheduler.generators(
            seed, (first + i % count for i in range(self.program.batch))
        )

    def _check(self, index: int, result: StepResult) -> None:
        network = self.program.network
        output = next(linear for linear in network.linears.values() if not linear.out)
        shape = (output.out_height, output.out_width, output.out_channels)
        expected = (self.program.batch, *shape)
        if result.accumulators.shape != expected:
            raise RunError(
                f"step {index} of '{network.name}' returned accumulators of shape "
                f"{result.accumulators.shape} instead of {expected}; the backend runs another "
                "program."
            )
