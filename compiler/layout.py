"""How the dimensions of a torch tensor relate to channels-last positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod


class LayoutError(ValueError):
    """A rearrangement that moves data between channels and positions."""


@dataclass(frozen=True)
class Layout:
    """Per torch dimension the factors it consists of: n (images), h, w, c, or c split into c0
    (heads) and c1. A view, transpose or permute that keeps every factor whole moves no data in
    channels-last order."""

    dims: tuple[tuple[str, ...], ...]
    sizes: Mapping[str, int]

    @classmethod
    def of_shape(cls, shape: Sequence[int]) -> Layout:
        """(N, C, H, W) images or (N, tokens, C) sequences; raises LayoutError."""
        if len(shape) == 4:
            n, c, h, w = shape
            return cls((("n",), ("c",), ("h",), ("w",)), {"n": n, "c": c, "h": h, "w": w})
        if len(shape) == 3:
            n, w, c = shape
            return cls((("n",), ("h", "w"), ("c",)), {"n": n, "c": c, "h": 1, "w": w})
        raise LayoutError(f"a tensor of shape {tuple(shape)} is neither an image nor a sequence")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the torch tensor."""
        return tuple(prod(self.sizes[f] for f in dim) for dim in self.dims)

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

    def resized(self, **sizes: int) -> Layout:
        """The same dimensions with other factor sizes."""
        return Layout(self.dims, {**self.sizes, **sizes})

    def view(self, shape: Sequence[int]) -> Layout:
        """Regroup factors in row-major order; raises LayoutError where one would be cut."""
        total = prod(self.shape)
        known = prod(s for s in shape if s != -1)
        wanted = [total // known if s == -1 else s for s in shape]
        sizes = dict(self.sizes)
        factors = [f for dim in self.dims for f in dim]
        dims: list[tuple[str, ...]] = []
        for position, size in enumerate(wanted):
            dim: list[str] = []
            while prod(sizes[f] for f in dim) < size or (
                factors and sizes[factors[0]] == 1 and (position == 0 and not dim)
            ):
                if not factors:
                    raise LayoutError(f"cannot view {self.shape} as {tuple(shape)}")
                room = size // prod(sizes[f] for f in dim)
                factor = factors.pop(0)
                if sizes[factor] > room:
                    if factor != "c" or sizes["c"] % room:
                        raise LayoutError(
                            f"a view of {self.shape} as {tuple(shape)} cuts dimension '{factor}'"
                        )
                    sizes["c0"], sizes["c1"] = room, sizes["c"] // room
                    factor = "c0"
                    factors.insert(0, "c1")
                dim.append(factor)
            if prod(sizes[f] for f in dim) != size:
                raise LayoutError(f"cannot view {self.shape} as {tuple(shape)}")
            dims.append(self._joined(dim))
        if any(sizes[f] != 1 for f in factors):
            raise LayoutError(f"cannot view {self.shape} as {tuple(shape)}")
        if factors:  # factors of size 1 that no dimension asked for
            dims[-1] = dims[-1] + tuple(factors)
        return Layout(tuple(dims), sizes)

    @staticmethod
    def _joined(dim: list[str]) -> tuple[str, ...]:
        text = ",".join(dim).replace("c0,c1", "c")
        return tuple(f for f in text.split(",") if f)

    @property
    def is_sequence(self) -> bool:
        """(images, positions, channels), what a linear layer takes."""
        flat = tuple(f for dim in self.dims for f in dim)
        return self.dims[-1] == ("c",) and flat == ("n", "h", "w", "c")

    @property
    def is_channels_first(self) -> bool:
        """(images, channels, positions...), what convolution and group normalisation take."""
        flat = tuple(f for dim in self.dims for f in dim)
        return self.dims[:2] == (("n",), ("c",)) and flat == ("n", "c", "h", "w")

    @property
    def heads(self) -> int:
        """Heads of (images, heads, positions, head channels), or 0 for other layouts."""
        if len(self.dims) != 4 or self.dims[0] != ("n",) or self.dims[2] != ("h", "w"):
            return 0
        if self.dims[1] == ("c0",) and self.dims[3] == ("c1",):
            return self.sizes["c0"]
        return int(self.dims[1] == () and self.dims[3] == ("c",))
