"""How the dimensions of a torch tensor relate to channels-last positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np


class LayoutError(ValueError):
    """A rearrangement that the accelerator's order of data cannot express."""


@dataclass(frozen=True)
class Factor:
    """A digit of the index along `axis`, which is "n" (images), "h", "w" or "c": it counts to
    `size` in steps of `stride`."""

    axis: str
    stride: int
    size: int


Dim = tuple[Factor, ...]


@dataclass(frozen=True)
class Layout:
    """Per torch dimension the factors it consists of, the slowest first. Factors of size one are
    left out and neighbours that count on are one, so equal layouts compare equal. A view, transpose
    or permute moves no data: it regroups factors, and splits them (heads, patches)."""

    dims: tuple[Dim, ...]
    sizes: Mapping[str, int]

    @classmethod
    def of_shape(cls, shape: Sequence[int]) -> Layout:
        """(N, C, H, W) images or (N, tokens, C) sequences; raises LayoutError."""
        if len(shape) == 4:
            n, c, h, w = shape
            sizes = {"n": n, "c": c, "h": h, "w": w}
            return cls(tuple(_whole(axis, sizes) for axis in "nchw"), sizes)
        if len(shape) == 3:
            n, w, c = shape
            sizes = {"n": n, "c": c, "h": 1, "w": w}
            return cls(tuple(_whole(axis, sizes) for axis in "nwc"), sizes)
        raise LayoutError(f"a tensor of shape {tuple(shape)} is neither an image nor a sequence")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the torch tensor."""
        return tuple(prod(f.size for f in dim) for dim in self.dims)

    @property
    def positions(self) -> int:
        """Positions of an image."""
        return self.sizes["h"] * self.sizes["w"]

    def index(self, dim: int) -> int:
        """Non-negative index of a dimension."""
        return dim % len(self.dims)

    def permute(self, order: Sequence[int]) -> Layout:
        """Reorder dimensions."""
        return Layout(tuple(self.dims[self.index(d)] for d in order), self.sizes)

    def transpose(self, a: int, b: int) -> Layout:
        """Exchange two dimensions."""
        order = list(range(len(self.dims)))
        order[self.index(a)], order[self.index(b)] = self.index(b), self.index(a)
        return self.permute(order)

    def unsqueeze(self, dim: int) -> Layout:
        """Insert a dimension of size one."""
        at = dim % (len(self.dims) + 1)
        return Layout((*self.dims[:at], (), *self.dims[at:]), self.sizes)

    def squeeze(self, dims: Sequence[int]) -> Layout:
        """Drop those of the dimensions that have size one."""
        gone = {self.index(d) for d in dims}
        kept = (dim for i, dim in enumerate(self.dims) if dim or i not in gone)
        return Layout(tuple(kept), self.sizes)

    def view(self, shape: Sequence[int]) -> Layout:
        """Regroup factors in row-major order; raises LayoutError where one would be cut unevenly.
        One entry of `shape` may be -1."""
        total = prod(self.shape)
        known = prod(s for s in shape if s != -1)
        wanted = [total // max(known, 1) if s == -1 else s for s in shape]
        if prod(wanted) != total:
            raise LayoutError(f"cannot view {self.shape} as {tuple(shape)}")
        factors = [f for dim in self.dims for f in dim]
        dims: list[Dim] = []
        for size in wanted:
            dim, room = [], size
            while room > 1:
                factor = factors.pop(0)
                if factor.size > room and factor.size % room == 0:
                    inner = factor.size // room
                    factors.insert(0, Factor(factor.axis, factor.stride, inner))
                    factor = Factor(factor.axis, factor.stride * inner, room)
                if room % factor.size:
                    raise LayoutError(
                        f"a view of {self.shape} as {tuple(shape)} cuts dimension '{factor.axis}'"
                    )
                dim.append(factor)
                room //= factor.size
            dims.append(_merged(dim))
        return Layout(tuple(dims), self.sizes)

    def replaced(self, dim: int, axis: str, size: int) -> Layout:
        """Dimension `dim`, all of `axis`, at another size; raises LayoutError for others."""
        dim = self.index(dim)
        if not self.holds(dim, axis):
            raise LayoutError(f"dimension {dim} of {self.shape} is not all of '{axis}'")
        sizes = {**self.sizes, axis: size}
        return Layout((*self.dims[:dim], _whole(axis, sizes), *self.dims[dim + 1 :]), sizes)

    def holds(self, dim: int, axis: str) -> bool:
        """Whether a dimension is all of an axis."""
        return self.dims[self.index(dim)] == _whole(axis, self.sizes)

    def selected(self, dim: int, start: int, length: int) -> tuple[Layout, np.ndarray]:
        """The layout of channels start .. start + length - 1 along `dim`, and the indices of the
        channels that are left; raises LayoutError where `dim` is no part of the channels."""
        dim = self.index(dim)
        channels = np.arange(self.sizes["c"])
        if length == self.shape[dim]:
            return self, channels
        part = self.dims[dim]
        if len(part) != 1 or part[0].axis != "c":
            raise LayoutError(f"dimension {dim} of {self.shape} does not count channels")
        stride, size = part[0].stride, part[0].size
        digit = channels // stride % size
        index = channels[(digit >= start) & (digit < start + length)]

        def renewed(factor: Factor) -> Factor:
            if factor.axis != "c" or factor.stride < stride:
                return factor
            if factor.stride == stride:
                return Factor("c", stride, length)
            return Factor("c", factor.stride // size * length, factor.size)

        dims = tuple(_merged([renewed(f) for f in d]) for d in self.dims)
        return Layout(dims, {**self.sizes, "c": len(index)}), index

    @property
    def is_image(self) -> bool:
        """(images, channels, height, width), what convolution takes."""
        return self.dims == tuple(_whole(axis, self.sizes) for axis in "nchw")

    @property
    def is_sequence(self) -> bool:
        """(..., channels), what a linear layer takes: it treats all positions alike."""
        return self.holds(-1, "c")

    @property
    def is_channels_first(self) -> bool:
        """(images, channels, positions...), what group normalisation takes."""
        return len(self.dims) > 2 and self.holds(0, "n") and self.holds(1, "c")

    def heads(self, tokens: str = "hw") -> int:
        """Heads of a tensor (all else in any order..., tokens, head channels), or 0 for other
        layouts. `tokens` are positions ("hw"), or the images that are frames of a video ("n")."""
        if len(self.dims) < 3 or self.dims[-2] != self._all(tokens):
            return 0
        width = self.shape[-1]
        heads = self.sizes["c"] // width
        leading = [f for dim in self.dims[:-2] for f in dim]
        others = self._all("n" if tokens == "hw" else "hw")
        expected = [*others, *_merged([Factor("c", width, heads)])]
        last = _merged([Factor("c", 1, width)])
        same = sorted(leading, key=_rank) == sorted(expected, key=_rank)
        return heads if self.dims[-1] == last and same else 0

    def _all(self, axes: str) -> Dim:
        return tuple(f for axis in axes for f in _whole(axis, self.sizes))

    def spread(self, array: np.ndarray) -> np.ndarray:
        """A constant (rows, ...) that broadcasts against the tensor, as (rows, images, positions,
        channels) in channels-last order, each of the three 1 where it does not vary along it;
        raises LayoutError where the constant is larger than the tensor."""
        given = (1,) * (len(self.dims) + 1 - array.ndim) + array.shape[1:]
        if len(given) != len(self.dims) or any(
            size not in (1, full) for size, full in zip(given, self.shape, strict=True)
        ):
            raise LayoutError(f"a constant of shape {array.shape[1:]} enlarges {self.shape}")
        factors = [f for dim in self.dims for f in dim]
        split = [
            1 if size == 1 else f.size
            for dim, size in zip(self.dims, given, strict=True)
            for f in dim
        ]
        order = sorted(range(len(factors)), key=lambda i: _rank(factors[i]))
        moved = array.reshape(len(array), *split).transpose(0, *(i + 1 for i in order))
        full, shape = [len(array)], [len(array)]
        for axes in ("n", "hw", "c"):
            group = [i for i in order if factors[i].axis in axes]
            varies = any(split[i] > 1 for i in group)
            full += [factors[i].size if varies else 1 for i in group]
            shape.append(prod(factors[i].size for i in group) if varies else 1)
        return np.broadcast_to(moved, full).reshape(shape)


def _whole(axis: str, sizes: Mapping[str, int]) -> Dim:
    return (Factor(axis, 1, sizes[axis]),) if sizes[axis] > 1 else ()


def _rank(factor: Factor) -> tuple[int, int]:
    return "nhwc".index(factor.axis), -factor.stride


def _merged(dim: Sequence[Factor]) -> Dim:
    """Neighbours that count on joined, factors of size one left out."""
    found: list[Factor] = []
    for factor in dim:
        if factor.size == 1:
            continue
        last = found[-1] if found else None
        counts_on = last and last.axis == factor.axis
        if last and counts_on and last.stride == factor.stride * factor.size:
            found[-1] = Factor(factor.axis, factor.stride, last.size * factor.size)
        else:
            found.append(factor)
    return tuple(found)
