"""Where a program keeps its tensors in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

ALIGNMENT = 64


@dataclass(frozen=True)
class Region:
    """Bytes [address, address + size) of one tensor; kind: weights, tables, state, delta, input,
    output, codes or descriptor."""

    name: str
    kind: str
    address: int
    size: int


class MemoryMap:
    """A bump allocator over named regions, aligned to ALIGNMENT bytes."""

    def __init__(self, regions: Iterable[Region] = ()) -> None:
        self._regions: dict[str, Region] = {r.name: r for r in regions}
        self._top = max((r.address + r.size for r in self._regions.values()), default=0)

    def allocate(self, name: str, kind: str, size: int) -> Region:
        """A new region behind all others; raises KeyError if the name is taken."""
        if name in self._regions:
            raise KeyError(f"memory region {name!r} exists")
        region = Region(name, kind, self.end, size)
        self._regions[name] = region
        self._top = region.address + size
        return region

    def __getitem__(self, name: str) -> Region:
        return self._regions[name]

    def __contains__(self, name: str) -> bool:
        return name in self._regions

    def __iter__(self) -> Iterator[Region]:
        return iter(self._regions.values())

    @property
    def end(self) -> int:
        """First aligned byte behind the last region."""
        return -(-self._top // ALIGNMENT) * ALIGNMENT

    def to_json(self) -> tuple[dict[str, Any], ...]:
        """Regions as dictionaries, in order of address."""
        return tuple(asdict(r) for r in self._regions.values())

    @classmethod
    def from_json(cls, data: Iterable[Mapping[str, Any]]) -> MemoryMap:
        """Inverse of `to_json`."""
        return cls(Region(**item) for item in data)
