"""Times of work on a device: median after warm-up, with buffers that the cache does not keep."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

Work = Callable[[], object]
WARM_UP, REPEATS, QUICK_REPEATS = 5, 30, 10
MOST_SETS = 64  # of buffers; a set that needs more is so small that launches are all it costs
# Cycles that the device sleeps before a measured call: longer than Python takes to launch the
# call's kernels, so that gaps between launches are not measured. About half a millisecond.
HEAD_START = 1_000_000


class Clock(Protocol):
    """Measures one call."""

    def time(self, work: Work) -> float:
        """Call `work`, wait for the device, and return the seconds that the device took."""


class CudaClock:
    """CUDA events around a call, without the launches' own time."""

    def time(self, work: Work) -> float:
        """As `Clock`."""
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(HEAD_START)
        start.record()
        work()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3


@dataclass(frozen=True)
class Timing:
    """Seconds: median and quartiles of `repeats` calls, over `sets` sets of buffers."""

    seconds: float
    low: float
    high: float
    repeats: int
    sets: int


def rotation(size: int, cache: int) -> int:
    """Sets of buffers of `size` bytes such that between two uses of one the others fill a cache of
    `cache` bytes."""
    return min(MOST_SETS, 1 + -(-cache // max(1, size)))


def measure(calls: Sequence[Work], clock: Clock, repeats: int = REPEATS) -> Timing:
    """Time calls in turn; the first WARM_UP, compilation among them, are not counted."""
    for index in range(WARM_UP):
        clock.time(calls[index % len(calls)])
    # The rotation goes on where the warm-up stopped.
    times = [clock.time(calls[(WARM_UP + n) % len(calls)]) for n in range(repeats)]
    low, _, high = statistics.quantiles(times, n=4, method="inclusive")
    return Timing(statistics.median(times), low, high, repeats, len(calls))


@dataclass(frozen=True)
class Bench:
    """Where and how everything of a run is timed. name: of the device, written into every result;
    cache: bytes of its last-level cache."""

    device: torch.device
    name: str
    cache: int
    clock: Clock
    repeats: int = REPEATS

    def sets(self, size: int) -> int:
        """How many sets of buffers of `size` bytes the cache asks for."""
        return rotation(size, self.cache)

    def time(self, make: Callable[[int], Work], size: int) -> Timing:
        """Time calls on as many sets of buffers as the cache asks for; `make(number)` allocates a
        set of `size` bytes and returns the call that uses it."""
        return self.measure([make(number) for number in range(self.sets(size))])

    def measure(self, calls: Sequence[Work]) -> Timing:
        """Time calls in turn."""
        return measure(calls, self.clock, self.repeats)

    def generator(self, seed: int = 0) -> torch.Generator:
        """Random numbers of this device."""
        return torch.Generator(self.device).manual_seed(seed)


def cuda_bench(repeats: int = REPEATS) -> Bench | None:
    """The CUDA device of this machine, or None. Raises GpuError where there is one, but no Triton
    to compile kernels for it."""
    if not torch.cuda.is_available():
        return None
    from signmask.reference.triton.device import device_name, find_device

    device = find_device()
    if device.type != "cuda":
        # Interpreted kernels (TRITON_INTERPRET=1) have no times that say anything.
        return None
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return Bench(device, device_name(), cache, CudaClock(), repeats)
