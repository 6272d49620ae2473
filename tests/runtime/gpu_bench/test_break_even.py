"""Where curves cross."""

import pytest

from signmask.runtime.gpu_bench.break_even import break_evens, crossing, curves
from signmask.runtime.gpu_bench.kernels import DELTA


@pytest.mark.parametrize(
    ("points", "share"),
    [
        ([], None),
        ([(0.0, 2.0), (0.5, 1.5), (0.9, 1.1)], None),
        ([(0.0, 2.0), (0.5, 1.5), (0.75, 0.5)], 0.625),
        ([(0.1, 0.9), (0.5, 0.5)], 0.1),
        ([(0.0, 0.9), (0.5, 1.5), (1.0, 0.5)], 0.75),  # the last crossing counts
        ([(0.0, 0.9), (0.5, 1.5)], None),
        ([(0.0, 2.0), (0.5, 1.0)], 0.5),
    ],
)
def test_crossing(points, share):
    assert crossing(points) == share


def test_the_fastest_dense_kernel_is_what_counts():
    head = {"shape": "s", "device": "d"}
    rows = [
        {**head, "kernel": "cuDNN fp16", "seconds": 2.0},
        {**head, "kernel": "cuDNN bf16", "seconds": 1.0},
        {**head, "kernel": "torch._int_mm", "seconds": None},
        {**head, "kernel": DELTA, "seconds": 0.5, "skipped": 0.8, "pattern": "tiles"},
        {**head, "kernel": DELTA, "seconds": 1.5, "skipped": 0.0, "pattern": "tiles"},
    ]
    assert curves(rows) == {("s", "tiles"): [(0.0, 1.5), (0.8, 0.5)]}
    (found,) = break_evens(rows)
    assert found["best_dense"] == "cuDNN bf16" and found["skipped"] == pytest.approx(0.4)
