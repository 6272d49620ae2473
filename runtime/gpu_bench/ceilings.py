"""What the device can do at most, measured in the same run: copying, and large matrix products."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch

from signmask.runtime.gpu_bench.timing import Bench, Work

COPIED = 1 << 30  # bytes of the buffer that is copied, far beyond any cache
SIDE = 8192  # of the square matrices


@dataclass(frozen=True)
class Ceilings:
    """copy: bytes per second read and written by a copy on the device; int8, fp16, bf16:
    multiply-accumulates per second of torch's matrix products of `side` x `side`."""

    device: str
    copy: float
    int8: float
    fp16: float
    bf16: float
    side: int

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""
        return asdict(self)

    def macs(self, kind: str) -> float:
        """Of "int8", "fp16" or "bf16"."""
        return {"int8": self.int8, "fp16": self.fp16, "bf16": self.bf16}[kind]


def measure_ceilings(bench: Bench, copied: int = COPIED, side: int = SIDE) -> Ceilings:
    """Time the copy and the products; raises torch.OutOfMemoryError."""
    rates = {}
    for kind, dtype in (("int8", torch.int8), ("fp16", torch.half), ("bf16", torch.bfloat16)):
        # Two int8 operands and an int32 result, or three matrices of 16 bits: the same bytes.
        timing = bench.time(partial(square_product, bench, dtype, side), 6 * side**2)
        rates[kind] = side**3 / timing.seconds
    timing = bench.time(partial(copy, bench, copied), 2 * copied)
    return Ceilings(bench.name, 2 * copied / timing.seconds, **rates, side=side)


def copy(bench: Bench, size: int, number: int) -> Work:
    """Set `number` of a call that copies `size` bytes."""
    source = torch.zeros(size, dtype=torch.int8, device=bench.device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def square_product(bench: Bench, dtype: torch.dtype, side: int, number: int) -> Work:
    """Set `number` of a product of random square matrices, the second one stored by columns."""
    left, right = (random_matrix(bench, dtype, side, 2 * number + n) for n in range(2))
    if dtype == torch.int8:
        return lambda: torch._int_mm(left, right.t())
    return lambda: left @ right.t()


def random_matrix(bench: Bench, dtype: torch.dtype, side: int, seed: int) -> torch.Tensor:
    """Values of all bits: constant operands would let the device clock higher than real ones."""
    shape, generator = (side, side), bench.generator(seed)
    if dtype == torch.int8:
        return torch.randint(
            -128, 128, shape, generator=generator, device=bench.device, dtype=dtype
        )
    return torch.randn(shape, generator=generator, device=bench.device, dtype=dtype)
