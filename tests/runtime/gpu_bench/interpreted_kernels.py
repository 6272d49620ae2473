"""Run with TRITON_INTERPRET=1: every kind of row on tiny shapes, timed by a clock that is made up.
Prints one JSON object. What a GPU will run has run once; the times mean nothing."""

import json

import torch

from signmask.runtime.gpu_bench.ceilings import measure_ceilings
from signmask.runtime.gpu_bench.shapes import Shape
from signmask.runtime.gpu_bench.study import Scope, measure_kernels
from signmask.runtime.gpu_bench.timing import Bench

SHAPES = (
    Shape("tiny", "conv", 4, 4, 96, 32, 3),
    Shape("tiny", "proj", 4, 8, 64, 48),
)


class CountingClock:
    """Calls the work, and takes one microsecond longer each time."""

    def __init__(self):
        self.calls = 0

    def time(self, work):
        work()
        self.calls += 1
        return 1e-3 + 1e-6 * self.calls


def main():
    torch.manual_seed(0)
    # A cache that asks for two sets of buffers.
    bench = Bench(torch.device("cpu"), "made-up device", 1, CountingClock(), repeats=2)
    ceilings = measure_ceilings(bench, copied=1 << 12, side=64)
    scope = Scope(SHAPES, (0.0, 0.6, 0.99), ((16, 32, 32, 4, 3), (32, 32, 64, 4, 3)), 1)
    found = measure_kernels(bench, ceilings, scope)
    print(json.dumps(found | {"ceilings": ceilings.to_json()}))


if __name__ == "__main__":
    main()
