"""PE array: convolution of groups of operands, exact, with cycles that depend on the data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from signmask.hw.spec import timing
from signmask.hw.spec.numerics import delta_passes, digit_passes
from signmask.sim.core import Core, Cost, Execute, Fields
from signmask.sim.errors import Fault
from signmask.sim.outlier_selector import OutlierSelector

FLOAT32_EXACT = 1 << 24  # sums of integers up to here are exact in float32, in any order
WEIGHT_BOUND = 128


@dataclass(frozen=True)
class Geometry:
    """Shape of one MATMUL."""

    images: int
    in_height: int
    in_width: int
    planes: int
    kernel: int
    step: int
    padding: int
    upsample: int
    out_height: int
    out_width: int

    @classmethod
    def of(cls, f: Fields) -> Geometry:
        """From the instruction's fields."""
        return cls(**{name: f[name] for name in cls.__dataclass_fields__})

    @property
    def pointwise(self) -> bool:
        """Whether operand positions and output positions are the same."""
        return (
            self.kernel == 1 and self.step == 1 and self.upsample == 1 and self.padding == 0
            and (self.in_height, self.in_width) == (self.out_height, self.out_width)
        )  # fmt: skip


@lru_cache(maxsize=512)
def patches(g: Geometry) -> np.ndarray:
    """intp (positions, kernel*kernel*planes): the word of the operand region that each tap reads;
    planes * images * in_height * in_width stands for a position outside the image."""
    plane = g.images * g.in_height * g.in_width
    places = []
    for out, size in ((g.out_height, g.in_height), (g.out_width, g.in_width)):
        at = np.arange(out)[:, None] * g.step - g.padding + np.arange(g.kernel)
        inside = (at >= 0) & (at < size * g.upsample)
        places.append((at // g.upsample, inside))
    (y, y_in), (x, x_in) = places
    # Axes: image, out row, out column, kernel row, kernel column, plane.
    word = (
        np.arange(g.images)[:, None, None, None, None] * g.in_height + y[None, :, None, :, None]
    ) * g.in_width + x[None, None, :, None, :]
    inside = (y_in[:, None, :, None] & x_in[None, :, None, :])[None]
    taps = word[..., None] + np.arange(g.planes) * plane
    taps = np.where(np.broadcast_to(inside[..., None], taps.shape), taps, g.planes * plane)
    return taps.reshape(g.images * g.out_height * g.out_width, -1).astype(np.intp)


class PeArray:
    """Executes MATMUL."""

    def __init__(self, core: Core, selector: OutlierSelector) -> None:
        self.core, self.selector = core, selector
        config = core.config
        self._cycles = np.array(
            [
                delta_passes(outliers, config.full_lanes, config.inlier_bits)
                for outliers in range(config.group + 1)
            ],
            np.uint8,
        )
        self.instructions: dict[str, Execute] = {"MATMUL": self.matmul}

    def matmul(self, f: Fields) -> Cost:
        """Convolution into the accumulators; cycles as in `docs/isa.md`."""
        core, config = self.core, self.core.config
        g = Geometry.of(f)
        if min(g.kernel, g.step, g.upsample, g.planes, g.images, f["blocks"]) < 1:
            raise Fault("has a size of 0")
        n, plane = config.group, g.images * g.in_height * g.in_width
        taps, positions = g.kernel * g.kernel * g.planes, g.images * g.out_height * g.out_width
        if not 0 < positions <= config.accumulator_words:
            raise Fault(f"has {positions} positions for {config.accumulator_words} accumulators")
        weights = core.weight.read(f["weight"], f["blocks"] * taps)
        source = core.input.read_planes(f["input"], g.planes, plane, f["input_stride"])
        region = np.empty((g.planes * plane + 1, n), np.float32)
        region[:-1] = source.reshape(-1, n)
        region[-1] = 0 if f["delta"] else f["zero"]
        if g.pointwise:
            operands = region[:-1].reshape(g.planes, plane, n).transpose(1, 0, 2)
        else:
            operands = region[patches(g)]
        products = self._product(operands.reshape(positions, -1), weights, f["blocks"], region)
        self._accumulate(f, products)
        passes = self._passes(g, region) if f["delta"] else digit_passes(8, config.inlier_bits) * (
            -(-positions // config.rows) * taps
        )  # fmt: skip
        cycles = passes * f["blocks"] + timing.array_fill(config)
        return Cost(cycles, cycles)

    def _product(
        self, operands: np.ndarray, weights: np.ndarray, blocks: int, region: np.ndarray
    ) -> np.ndarray:
        """int32 (positions, blocks * columns), summed in slices that float32 holds exactly."""
        columns, n = weights.shape[1:]
        words = weights.reshape(blocks, -1, columns, n).transpose(0, 2, 1, 3)
        matrix = words.astype(np.float32, order="C").reshape(blocks * columns, -1)
        bound = max(float(region.max()), -float(region.min()), 1.0)
        length = int(FLOAT32_EXACT // (bound * WEIGHT_BOUND))
        total = operands[:, :length] @ matrix[:, :length].T
        product: np.ndarray = total.astype(np.int32)
        for start in range(length, operands.shape[1], length):
            stop = start + length
            product += (operands[:, start:stop] @ matrix[:, start:stop].T).astype(np.int32)
        return product

    def _accumulate(self, f: Fields, products: np.ndarray) -> None:
        core, n = self.core, self.core.config.group
        positions, channels = products.shape
        planes = -(-channels // n)
        if planes * n != channels:
            products = np.pad(products, ((0, 0), (0, planes * n - channels)))
        words = products.reshape(positions, planes, n).transpose(1, 0, 2)
        at, stride = f["accumulator"], f["accumulator_stride"]
        if f["accumulate"]:
            words = words.astype(np.int64) + core.accumulator.read_planes(
                at, planes, positions, stride
            )
            if int(words.max()) >= 1 << 31 or int(words.min()) < -(1 << 31):
                raise Fault("adds up to more than 32 bits in an accumulator")
            words = words.astype(np.int32)
        core.accumulator.write_planes(at, np.ascontiguousarray(words), stride)

    def _passes(self, g: Geometry, region: np.ndarray) -> int:
        """Passes of all row blocks and taps on differences, for one column block."""
        rows = self.core.config.rows
        positions = g.images * g.out_height * g.out_width
        taps = g.kernel * g.kernel * g.planes
        count = np.count_nonzero(self.selector.outliers(region), axis=-1)
        words = self._cycles[count]
        blocks = -(-positions // rows)
        if words.max() == 1:
            return blocks * taps
        if g.pointwise:
            gathered = words[:-1].reshape(g.planes, -1).T
        else:
            gathered = words[patches(g)]
        if blocks * rows != positions:
            gathered = np.pad(gathered, ((0, blocks * rows - positions), (0, 0)))
        return int(gathered.reshape(blocks, rows, taps).max(axis=1).sum(dtype=np.int64))
