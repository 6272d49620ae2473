"""Times of steps, on the golden model with a clock that is made up."""

import statistics
from itertools import count

import pytest

from signmask.runtime.backend import open_backend
from signmask.runtime.gpu_bench import end_to_end
from signmask.runtime.gpu_bench.end_to_end import TimedBackend, time_program
from signmask.runtime.session import Session
from tests.runtime.programs import tiny_program


def test_steps_are_timed_by_kind():
    program = tiny_program(dataflow="mask")
    ticks = count()
    timed = TimedBackend(open_backend("reference", program), lambda: float(next(ticks)))
    Session(program, timed).sample(2)
    assert timed.dense == [1.0] and timed.delta == [1.0] * (program.network.steps - 1)


@pytest.mark.parametrize("dataflow", ["dense", "mask"])
def test_the_first_run_is_not_counted(monkeypatch, dataflow):
    program = tiny_program(dataflow=dataflow)
    opened, backends = [], []

    def open_one(given):
        opened.append(given)
        return open_backend("reference", given)

    class Kept(TimedBackend):
        def __init__(self, backend):
            super().__init__(backend)
            backends.append(self)

    monkeypatch.setattr(end_to_end, "TimedBackend", Kept)
    seconds = time_program(program, open_one, 2)
    (backend,) = backends
    times = backend.dense if dataflow == "dense" else backend.delta
    assert len(opened) == 1 and seconds == statistics.median(times)
    assert len(backend.dense) + len(backend.delta) == program.network.steps


def test_rows_of_a_model_say_what_its_weights_are():
    workload = end_to_end.Workload("ddpm-cifar10-small", "nano", trained=False)
    rows = end_to_end.step_rows(
        workload, 2, 1, "made-up device", lambda text, fraction: None,
        lambda program: open_backend("reference", program),
    )  # fmt: skip
    assert [row["dataflow"] for row in rows] == ["dense", "restore", "mask"]
    assert all(row["seconds_per_step"] > 0 and row["device"] == "made-up device" for row in rows)
    assert all("random weights" in row["note"] for row in rows)
    assert rows[0]["speedup"] == 1
