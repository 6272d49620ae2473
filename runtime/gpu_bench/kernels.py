"""Linear operators of one shape: the libraries' dense kernels, our dense int8, and ours on deltas
with empty tiles."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from signmask.reference.triton.layout import RUN, Operand
from signmask.runtime.gpu_bench.ceilings import Ceilings
from signmask.runtime.gpu_bench.operands import PATTERNS, Material, columns_of, random_int8
from signmask.runtime.gpu_bench.shapes import Shape
from signmask.runtime.gpu_bench.timing import Bench, Timing, Work

if TYPE_CHECKING:
    from signmask.reference.triton.linear import Blocks, TritonLinear

SPARSITIES = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
QUICK_SPARSITIES = (0.0, 0.6, 0.9, 0.99)
# rows, channels, depth, warps, stages: large blocks use tensor cores best, small ones skip most
CANDIDATES = (
    (128, 256, 128, 8, 3), (128, 256, 64, 8, 3), (128, 128, 128, 8, 3), (128, 128, 64, 8, 4),
    (64, 128, 128, 4, 3), (64, 128, 64, 4, 4), (32, 128, 64, 4, 4), (16, 128, 32, 4, 4),
)  # fmt: skip
OURS, DELTA = "signmask int8 dense", "signmask int8 delta"
INT_MM = "torch._int_mm"
NO_INT8_CONVOLUTION = "not applicable: torch has no int8 convolution, and unfolding is not fair"


@dataclass(frozen=True)
class Case:
    """What is timed together: a shape at a batch, on a bench, against ceilings."""

    bench: Bench
    shape: Shape
    images: int
    ceilings: Ceilings

    def row(
        self, kernel: str, kind: str, timing: Timing, size: int, **facts: Any
    ) -> dict[str, Any]:
        """A result. kind: of the ceiling that its products count against; size: bytes that are
        moved at least; `executed`, among the facts, is the share of the products that are made."""
        macs = self.shape.macs(self.images) * facts.get("executed", 1.0)
        return {
            **self.head(kernel), **asdict(timing),
            "share_of_products_ceiling": macs / timing.seconds / self.ceilings.macs(kind),
            "share_of_copy_bandwidth": size / timing.seconds / self.ceilings.copy,
            **facts,
        }  # fmt: skip

    def missing(self, kernel: str, why: str, **facts: Any) -> dict[str, Any]:
        """A row for what was not measured."""
        return {**self.head(kernel), "seconds": None, "note": why, **facts}

    def head(self, kernel: str) -> dict[str, Any]:
        """What every row begins with."""
        return {
            "shape": self.shape.name, "layer": self.shape.layer, "images": self.images,
            "macs": self.shape.macs(self.images), "kernel": kernel, "device": self.bench.name,
        }  # fmt: skip

    def product_bytes(self, width: int, result: int) -> int:
        """Bytes of operand and weights of `width` bytes an element, and of the results."""
        shape, positions = self.shape, self.shape.positions(self.images)
        elements = positions * shape.in_channels + shape.out_channels * shape.depth
        return width * elements + result * positions * shape.out_channels


def library_rows(case: Case) -> Iterator[dict[str, Any]]:
    """cuDNN or cuBLAS in fp16 and bf16, and torch._int_mm."""
    bench, shape = case.bench, case.shape
    size = case.product_bytes(2, 2)
    for kind, dtype in (("fp16", torch.half), ("bf16", torch.bfloat16)):
        name = f"cuDNN {kind}" if shape.kernel > 1 else f"torch.matmul {kind}"
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            timing = bench.time(partial(float_product, case, dtype), size)
        yield case.row(name, kind, timing, size)
    if shape.kernel > 1:
        yield case.missing(INT_MM, NO_INT8_CONVOLUTION)
        return
    size = case.product_bytes(1, 4)
    yield case.row(INT_MM, "int8", bench.time(partial(integer_product, case), size), size)


def float_product(case: Case, dtype: torch.dtype, number: int) -> Work:
    """Set `number` of a convolution on channels-last tensors, or a matrix product."""
    shape, device, generator = case.shape, case.bench.device, case.bench.generator(number)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device, dtype=dtype)

    if shape.kernel == 1:
        rows = draw(shape.positions(case.images), shape.in_channels)
        columns = draw(shape.out_channels, shape.in_channels)
        return lambda: rows @ columns.t()
    image = draw(case.images, shape.in_channels, shape.height, shape.width)
    weight = draw(shape.out_channels, shape.in_channels, shape.kernel, shape.kernel)
    image = image.to(memory_format=torch.channels_last)
    weight = weight.to(memory_format=torch.channels_last)
    return lambda: functional.conv2d(image, weight, padding=shape.kernel // 2)


def integer_product(case: Case, number: int) -> Work:
    """Set `number` of a call of torch._int_mm."""
    shape, generator = case.shape, case.bench.generator(number)
    rows = random_int8((shape.positions(case.images), shape.in_channels), -128, 128, generator)
    columns = random_int8((shape.out_channels, shape.in_channels), -128, 128, generator)
    return lambda: torch._int_mm(rows, columns.t())


@dataclass(frozen=True)
class Contender:
    """Our operator with one choice of blocks, once for each set of buffers."""

    blocks: Blocks
    linears: list[TritonLinear]


class Contenders:
    """Our operator of a case with every choice of blocks that fits it."""

    def __init__(self, case: Case, candidates: Sequence[tuple[int, ...]] = CANDIDATES) -> None:
        from signmask.reference.triton.linear import TritonLinear

        self.case, shape = case, case.shape
        self.sets = case.bench.sets(case.product_bytes(1, 4))
        self.generator = case.bench.generator()
        self.material = Material.draw(shape, case.images, self.generator)
        self.entries = []
        for blocks in fitting_blocks(case, candidates):
            geometry, columns = geometry_of(shape, case.images), columns_of(shape)
            first = TritonLinear(self.material.weight, geometry, columns, blocks=blocks)
            self.entries.append(Contender(blocks, [first, *self._copies(first)]))

    def _copies(self, linear: TritonLinear) -> Iterator[TritonLinear]:
        """The same operator on weights of its own."""
        for _ in range(self.sets - 1):
            other = copy.copy(linear)
            other.weight = linear.weight.clone()
            yield other

    def dense_row(self) -> dict[str, Any]:
        """Our kernel on codes."""
        operands = [self.material.codes(self.generator) for _ in range(self.sets)]
        size = self.case.product_bytes(1, 4)
        best, rejected = self._best(operands)
        if best is None:
            return self.case.missing(OURS, "no choice of blocks runs", rejected=rejected)
        blocks, timing = best[0].blocks, best[1]
        return self.case.row(
            OURS, "int8", timing, size, blocks=asdict(blocks), rejected=rejected
        )  # fmt: skip

    def delta_rows(self, sparsities: Sequence[float]) -> Iterator[dict[str, Any]]:
        """Our kernel on deltas, by pattern and share of empty tiles; making the lists of tiles is
        part of the time, and given apart as well."""
        for pattern in PATTERNS:
            for empty in sparsities:
                yield self.delta_row(pattern, empty)

    def delta_row(self, pattern: str, empty: float) -> dict[str, Any]:
        """Our kernel on deltas that are empty to this share."""
        operands = [self.material.deltas(empty, pattern, self.generator) for _ in range(self.sets)]
        drawn = {"pattern": pattern, "empty": empty}
        best, rejected = self._best(operands)
        if best is None:
            why = "no choice of blocks runs"
            return self.case.missing(DELTA, why, **drawn, rejected=rejected)
        contender, timing = best
        levels = [operand.levels for operand in operands if operand.levels is not None]
        lists = self.case.bench.measure(
            [
                partial(linear.lister, known)
                for linear, known in zip(contender.linears, levels, strict=True)
            ]
        )
        skipped = 1 - contender.linears[0].lister(levels[0]).filled()
        shape, positions = self.case.shape, self.case.shape.positions(self.case.images)
        unread = round(positions * shape.in_channels * empty)
        return self.case.row(
            DELTA, "int8", timing, self.case.product_bytes(1, 4) - unread, **drawn,
            skipped=skipped, executed=1 - skipped, lists_seconds=lists.seconds,
            blocks=asdict(contender.blocks), rejected=rejected,
        )  # fmt: skip

    def _best(
        self, operands: list[Operand]
    ) -> tuple[tuple[Contender, Timing] | None, list[dict[str, Any]]]:
        """The fastest choice of blocks, each checked against float64 first, and those that were
        rejected with the reason."""
        expected = exact_product(self.material, operands[0])
        best: tuple[Contender, Timing] | None = None
        rejected = []
        for contender in self.entries:
            calls = [
                partial(linear, operand)
                for linear, operand in zip(contender.linears, operands, strict=True)
            ]
            try:
                right = torch.equal(calls[0](), expected)
                timing = self.case.bench.measure(calls) if right else None
            except Exception as error:
                # Triton's own class, which only reference/triton may import.
                if type(error).__name__ != "OutOfResources":
                    raise
                rejected.append(asdict(contender.blocks) | {"why": str(error)})
                continue
            if timing is None:
                rejected.append(asdict(contender.blocks) | {"why": "wrong results"})
            elif best is None or timing.seconds < best[1].seconds:
                best = contender, timing
        return best, rejected


def fitting_blocks(case: Case, candidates: Sequence[tuple[int, ...]]) -> list[Blocks]:
    """The operator's own choice, then the candidates that are not larger than the case."""
    from signmask.reference.triton.linear import Blocks

    shape, outputs = case.shape, case.shape.positions(case.images)
    columns = columns_of(shape).width
    found = [Blocks.fitting(outputs, shape.out_channels, columns)]
    for candidate in candidates:
        blocks = Blocks(*candidate)
        fits = columns % blocks.depth == 0 and blocks.rows < 2 * max(outputs, RUN)
        if fits and blocks.channels < 2 * max(shape.out_channels, 16) and blocks not in found:
            found.append(blocks)
    return found


def geometry_of(shape: Shape, images: int) -> Any:
    """`Geometry` of a shape."""
    from signmask.reference.triton.tiles import Geometry

    if shape.kernel == 1:
        positions = shape.height * shape.width
        return Geometry(images, 1, positions, 1, positions)
    size = (shape.height, shape.width)
    return Geometry(images, *size, *size, kernel=shape.kernel, padding=shape.kernel // 2)


def exact_product(material: Material, operand: Operand) -> Tensor:
    """int32 (outputs, out_channels), from float64, which holds every sum of these integers."""
    shape, values = material.shape, operand.narrow.double()
    if operand.rest is not None:
        values += 2 * operand.rest
    values = values[:, : shape.in_channels]
    weight = material.weight.double()
    if shape.kernel == 1:
        made = values @ weight.reshape(shape.out_channels, -1).t()
    else:
        image = values.reshape(material.images, shape.height, shape.width, -1).permute(0, 3, 1, 2)
        weight = weight.permute(0, 3, 1, 2)
        made = functional.conv2d(image, weight, padding=shape.kernel // 2)
        made = made.permute(0, 2, 3, 1).reshape(len(values), -1)
    return made.round().int()
