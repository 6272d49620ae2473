"""Random instructions of the near-data engine: descriptors and the memory that they act on."""

from __future__ import annotations

import numpy as np

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import (
    BOUNDARY_FIELDS,
    FORMATS,
    LOOPS,
    NORMS,
    STREAM_FIELDS,
    Instruction,
    pack_descriptor,
)
from signmask.sim import compressor

STEPS = 4
UNUSED_BREAK = 1 << 40
OPERATIONS = ("PREPARE", "UPDATE_CODES", "UPDATE_STREAM", "READ")


def instruction_word(name: str, descriptor: int) -> int:
    """The 256-bit word of an engine instruction."""
    assert name in FORMATS
    return int.from_bytes(Instruction(name, {"descriptor": descriptor}).encode(), "little")


class Case:
    """A boundary and a stream with random state in `image` (uint8).

    `boundary` and `stream` are the addresses of the descriptors, `steps` is (now, last).
    """

    def __init__(self, config: HardwareConfig, seed: int, **fixed: object) -> None:
        self.rng = rng = np.random.default_rng(seed)
        self.config, self.n = config, config.group
        self._regions: list[tuple[int, np.ndarray]] = []
        self._free = 64 * int(rng.integers(1, 9))
        choose = lambda name, value: fixed.get(name, value)  # noqa: E731
        self.images = choose("images", int(rng.integers(1, 4)))
        self.positions = choose("positions", int(rng.choice([1, 2, 7, 16, 40, 70])))
        self.planes = choose("planes", tuple(rng.integers(1, 4, int(rng.integers(1, 5))).tolist()))
        self.loop = choose("loop", str(rng.choice(LOOPS)))
        self.norm = choose("norm", str(rng.choice(NORMS)))
        self.dense = choose("outliers", float(rng.choice([0, 0.05, 0.3, 1])))
        self.words = self.images * self.positions
        self.now, self.last = choose("steps", rng.integers(0, STEPS, 2).tolist())
        self.channels = [
            int(rng.integers((planes - 1) * self.n + 1, planes * self.n + 1))
            for planes in self.planes
        ]
        self.boundary = self._boundary(
            choose("segment_bits", int(rng.integers(0, 4))),
            choose("spill", int(rng.integers(0, 2))),
            choose("stepped", int(rng.integers(0, 2))),
        )
        self.stream = self._stream()
        self.image = np.zeros(-(-self._free // 4096) * 4096, np.uint8)
        for address, data in self._regions:
            self.image[address : address + data.size] = data

    def _put(self, values: np.ndarray, dtype: str = "u1") -> int:
        data = np.ascontiguousarray(values, dtype).reshape(-1).view(np.uint8)
        address = self._free
        self._regions.append((address, data))
        self._free += -(-data.size // 64) * 64 + 64 * int(self.rng.integers(0, 3))
        return address

    def _raw(self, planes: int, wide: int) -> np.ndarray:
        limit = 300 if wide == 2 else 9000
        return self.rng.integers(-limit, limit, (planes, self.images, self.positions, self.n))

    def _deltas(self, shape: tuple[int, ...], bits: int, wide: int) -> np.ndarray:
        rng = self.rng
        narrow = rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape)
        limit = 1 << (14 if wide == 2 else 20)
        return np.where(rng.random(shape) < self.dense, rng.integers(-limit, limit, shape), narrow)

    def _compressed(self, values: np.ndarray, chunk: int, bits: int, wide: int) -> tuple[int, int]:
        """Addresses of area and lists of (words, n) values in chunks."""
        pieces = [
            compressor.compress(values[at : at + chunk], bits, wide)
            for at in range(0, len(values), chunk)
        ]
        lists = np.zeros((len(pieces), chunk * self.n * wide), np.uint8)
        for row, (_, outliers) in zip(lists, pieces, strict=True):
            row[: outliers.size] = outliers
        area = np.concatenate([area for area, _ in pieces])
        return self._put(area), self._put(lists.reshape(-1)[: len(values) * self.n * wide])

    def _dy(self, planes: int, wide: int) -> dict[str, int]:
        """Fields of a random dy of `planes` planes."""
        bits = int(self.rng.integers(2, 10))
        values = self._deltas((planes * self.words, self.n), bits, wide)
        chunk = self.words * int(self.rng.integers(1, planes + 1))
        whole = bool(self.rng.integers(0, 2))
        area, lists = self._compressed(values, len(values) if whole else chunk, bits, wide)
        return {"dy": area, "dy_list": lists, "dy_bits": bits, "dy_chunk": 0 if whole else chunk}

    def _boundary(self, segment_bits: int, spill: int, stepped: int) -> int:
        rng, n, planes = self.rng, self.n, sum(self.planes)
        every = sum(self.channels)
        groups = int(rng.choice([g for g in range(1, min(every, 16) + 1) if every % g == 0]))
        segments = 1 << segment_bits
        table = np.zeros((3, n), np.int64)
        table[0] = UNUSED_BREAK
        table[0, : segments - 1] = np.sort(rng.integers(-3000, 3000, segments - 1))
        table[1, :segments] = rng.integers(-2000, 4000, segments)
        table[2, :segments] = rng.integers(-(1 << 18), 1 << 18, segments)
        cal = rng.integers(-900, 900, (2, STEPS, planes, n))
        carry = int(rng.integers(1, 9)) if self.loop == "carry" else 0
        correction = int(rng.integers(2, 7))
        bits = rng.integers(0, 256, planes * self.words * n, np.uint8)
        d: dict[str, int] = {
            "source": int(rng.integers(0, 100)), "images": self.images,
            "positions": self.positions, "planes": planes, "parts": len(self.planes),
            "loop": LOOPS.index(self.loop), "norm": NORMS.index(self.norm), "spill": spill,
            "segment_bits": segment_bits,
            "correction_bits": correction, "carry_bits": carry, "z_shift": 6, "code_shift": 12,
            "low": -128, "high": 127, "groups": groups, "count": every // groups * self.positions,
            "epsilon": 5, "gain_shift": 45, "mean_shift": 8,
            "cal_stride": 0 if self.norm == "affine" else planes * n * 8,
            "x_hat": self._put(
                rng.integers(-128, 128, (planes * self.words, n)), "<i2"
            ),
            "table": self._put(table, "<i8"),
            "segments": self._put(bits[: planes * self.words * n * segment_bits // 8]),
            "gain": self._put(rng.integers(-(1 << 12), 1 << 12, planes * self.images * n), "<i4"),
            "residue": self._put(bits[: planes * self.words * n * carry // 8]),
            "norm_gain": self._put(rng.integers(-(1 << 21), 1 << 21, (STEPS, planes, n)), "<i8"),
            "norm_offset": self._put(
                rng.integers(-(1 << 16), 1 << 16, (STEPS, planes, n)), "<i8"
            ),
            "norm_stride": planes * n * 8 * stepped,
            "cal_mean": self._put(rng.integers(-9000, 9000, (STEPS, groups)), "<i8"),
            "cal_inverse": self._put(rng.integers(12000, 20000, (STEPS, groups)), "<i8"),
            "cal_sigma": self._put(rng.integers(12000, 20000, (STEPS, groups)), "<i8"),
            "cal_a": self._put(cal[0], "<i8"), "cal_b": self._put(cal[1], "<i8"),
        }  # fmt: skip
        values = self._deltas((planes * self.words, n), correction, 2) % 256 - 128
        d["corrections"], d["correction_list"] = self._compressed(values, self.words, correction, 2)
        for part, (count, channels) in enumerate(zip(self.planes, self.channels, strict=True)):
            wide = int(rng.choice([2, 4]))
            y = self._raw(count, wide)
            sums = np.stack([y.sum(2), (y**2).sum(2)], 2)
            fields = self._dy(count, wide) | {
                "y": self._put(y, f"<i{wide}"), "y_bytes": wide, "sums": self._put(sums, "<i8"),
                "planes": count, "channels": channels,
            }  # fmt: skip
            d |= {f"{name}_{part}": value for name, value in fields.items()}
        return self._put(pack_descriptor(BOUNDARY_FIELDS, d), "<i8")

    def _stream(self) -> int:
        rng, n, wide = self.rng, self.n, int(self.rng.choice([2, 4]))
        planes, channels = self.planes[0], self.channels[0]
        y = self._raw(planes, wide)
        near = rng.random(y.shape) < 0.1
        limit = (1 << (8 * wide - 1)) - 1
        y[near] = limit - rng.integers(0, 50, int(near.sum()))
        d = self._dy(planes, wide) | {
            "stream": int(rng.integers(0, 100)), "images": self.images,
            "positions": self.positions, "planes": planes, "channels": channels,
            "y": self._put(y, f"<i{wide}"), "y_bytes": wide,
            "sums": self._put(np.zeros(planes * self.images * 2 * n), "<i8"),
            "stat_shift": int(rng.integers(0, 3)) if wide == 2 else 12,
            "codes": self._put(np.zeros(planes * self.words * n)),
            "multiplier": int(rng.integers(1, 1 << 15)), "shift": int(rng.integers(8, 24)),
        }  # fmt: skip
        if rng.random() < 0.2:
            d["sums"] = 0
        return self._put(pack_descriptor(STREAM_FIELDS, d), "<i8")
