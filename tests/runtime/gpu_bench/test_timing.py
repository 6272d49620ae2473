"""Medians, warm-up and rotation, with clocks that are made up."""

import torch

from signmask.runtime.gpu_bench import timing
from signmask.runtime.gpu_bench.timing import (
    MOST_SETS,
    WARM_UP,
    Bench,
    CudaClock,
    cuda_bench,
    measure,
    rotation,
)


class ScriptedClock:
    """Gives back the times it was told, and calls the work."""

    def __init__(self, times):
        self.times = iter(times)

    def time(self, work):
        work()
        return next(self.times)


def test_the_median_is_taken_after_the_warm_up():
    clock = ScriptedClock([100.0] * WARM_UP + [3.0, 1.0, 2.0, 50.0, 4.0])
    found = measure([lambda: None], clock, repeats=5)
    assert (found.seconds, found.low, found.high) == (3.0, 2.0, 4.0)
    assert found.repeats == 5 and found.sets == 1
    assert next(clock.times, None) is None


def test_sets_are_used_in_turn():
    used = []
    calls = [lambda n=n: used.append(n) for n in range(3)]
    measure(calls, ScriptedClock([1.0] * 100), repeats=7)
    assert used == [n % 3 for n in range(WARM_UP + 7)]


def test_between_two_uses_the_other_sets_fill_the_cache():
    cache = 50 * 2**20
    for size in (1 << 20, 7_000_001, cache, cache + 1, 10 * cache):
        sets = rotation(size, cache)
        assert (sets - 1) * size >= cache
        assert sets == 2 or (sets - 2) * size < cache
    assert rotation(1, cache) == rotation(0, cache) == MOST_SETS


def test_a_bench_makes_every_set_once():
    made = []

    def make(number):
        made.append(number)
        return lambda: None

    clock = ScriptedClock([1.0] * 100)
    bench = Bench(torch.device("cpu"), "made up", 1000, clock, repeats=4)
    found = bench.time(make, 300)
    assert made == list(range(5)) and found.sets == 5 and found.repeats == 4


def test_cuda_events_stand_around_the_work_alone(monkeypatch):
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("record")

        def synchronize(self):
            log.append("wait")

        def elapsed_time(self, other):
            return 2.5

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: log.append("sleep"))
    assert CudaClock().time(lambda: log.append("work")) == 2.5e-3
    assert log == ["sleep", "record", "work", "record", "wait"]


def test_without_a_device_there_is_no_bench(monkeypatch):
    monkeypatch.setattr(timing.torch.cuda, "is_available", lambda: False)
    assert cuda_bench() is None


def test_interpreted_kernels_are_not_timed(monkeypatch):
    monkeypatch.setattr(timing.torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert cuda_bench() is None
