"""Cycles and bytes that instructions are expected to take, from their fields alone.

Unit times are those of the simulator (`hw/spec/timing.py`). What depends on data, how many
differences are wide, follows assumed shares (`delta_shares.py`): those of operands in tenths of the
work, within which elements are independent of each other. The near-data engine is taken at one word
per cycle or at the bandwidth of its port. An estimate: the simulator counts exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import comb

import numpy as np

from signmask.compiler.backend.builder import PhaseCode
from signmask.compiler.backend.layout import CORRECTION_WIDE_BYTES, Layout, delta_bytes
from signmask.compiler.delta_shares import DeltaShares
from signmask.hw.spec import timing
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import FORMATS, NAMES, Queue, Traffic, field_column
from signmask.hw.spec.network import Encoding, Stream
from signmask.hw.spec.numerics import delta_passes, digit_passes

Fields = Mapping[str, int]

# Fields that say where an operand lies; no rule reads them.
PLACES = frozenset(
    "address list accumulator input weight parameter mask buffer rows output add now last previous "
    "other".split()
)


@dataclass
class LayerCost:
    """Busy cycles of each queue, bytes on the bus, and bytes beside the memory."""

    busy: dict[Queue, float] = field(default_factory=lambda: dict.fromkeys(Queue, 0.0))
    bus_bytes: float = 0.0
    near_data_bytes: float = 0.0

    @property
    def cycles(self) -> float:
        """Cycles of the busiest queue: the others work beside it."""
        return max(self.busy.values())

    @property
    def bound(self) -> str:
        """The busiest queue."""
        return max(self.busy, key=self.busy.__getitem__).name.lower()


def expected_passes(config: HardwareConfig, outlier_share: float) -> float:
    """Mean passes of the array for one tap: the worst of `rows` groups, whose outliers are
    binomial."""
    n = config.group
    chance = [comb(n, k) * outlier_share**k * (1 - outlier_share) ** (n - k) for k in range(n + 1)]
    passes = [delta_passes(k, config.full_lanes, config.inlier_bits) for k in range(n + 1)]
    expected, below = 0.0, 0.0
    for level in sorted(set(passes)):
        within = sum(p for p, needed in zip(chance, passes, strict=True) if needed <= level)
        reached = min(within, 1.0) ** config.rows
        expected += level * (reached - below)
        below = reached
    return expected


class CostModel:
    """Expected cost of the instructions of one compiled network."""

    def __init__(self, layout: Layout, shares: DeltaShares) -> None:
        self.layout, self.config, self.shares = layout, layout.config, shares
        passes = [expected_passes(layout.config, share) for share in shares.outlier_deciles]
        clipped = layout.network.knobs.overflow == "clip"  # never more than the wide lanes take
        self.passes = 1.0 if clipped else sum(passes) / len(passes)
        self.digits = digit_passes(8, layout.config.inlier_bits)
        self.n = layout.config.group
        network = layout.network
        self.described: dict[int, Stream | Encoding] = {
            layout.address(f"descriptor/{name}"): item
            for table in (network.streams, network.encodings)
            for name, item in table.items()
        }
        loads = ("WEIGHTS", "KEYS", "CODES", "PARAMETERS", "RAW", "DELTAS", "OUTLIERS", "MASK")
        self._rules: dict[str, Callable[[str, Fields], tuple[float, float, float]]] = {
            **{f"LOAD_{kind}": self._load for kind in loads},
            **{f"STORE_{kind}": self._store for kind in ("RAW", "DELTAS", "PARAMETERS")},
            "MATMUL": self._matmul, "CONSTANTS": self._constants,
            **dict.fromkeys(("PREPARE", "UPDATE_CODES", "UPDATE_STREAM", "READ"), self._engine),
        }  # fmt: skip

    def layers(self, emitted: PhaseCode) -> dict[str, LayerCost]:
        """Cost by layer. Instructions that differ only in places cost the same: each kind is
        computed once, and counted."""
        found: dict[str, LayerCost] = {}
        for opcode in np.unique(emitted.code[:, 0]).tolist():
            chosen = emitted.code[:, 0] == opcode
            name, code = NAMES[opcode], emitted.code[chosen]
            items = [item for item, _, _ in FORMATS[name].fields if item not in PLACES]
            columns = [field_column(code, name, item) for item in items]
            kinds, counts = np.unique(
                np.stack([emitted.layer[chosen], *columns], axis=1), axis=0, return_counts=True
            )
            rule = self._rules.get(name, self._vector)
            for (layer, *values), count in zip(kinds.tolist(), counts.tolist(), strict=True):
                cost = found.setdefault(emitted.layers[layer], LayerCost())
                cycles, bus, near = rule(name, dict(zip(items, values, strict=True)))
                cost.busy[FORMATS[name].queue] += count * cycles
                cost.bus_bytes += count * bus
                cost.near_data_bytes += count * near
        return found

    def _bytes(self, name: str, f: Fields) -> float:
        kind, words, n = name.partition("_")[2], f.get("words", 0), self.n
        if kind == "WEIGHTS":
            return words * self.config.columns * n
        if kind == "KEYS":
            return f["planes"] * f["tokens"] * n
        if kind == "MASK":
            return words * n * f["bits"] // 8
        correction = f.get("kind") == Traffic.CORRECTIONS
        wide = self.shares.correction if correction else self.shares.change
        if kind == "OUTLIERS":
            return words * n * wide * f["wide_bytes"]
        if kind == "DELTAS":
            fixed = delta_bytes(words, n, f["inlier_bits"])
            return fixed + (words * n * wide * f["wide_bytes"] if name[0] == "S" else 0)
        return words * n * f.get("entry_bytes", 1)

    def _load(self, name: str, f: Fields) -> tuple[float, float, float]:
        size = self._bytes(name, f)
        chunks = 0 if name in ("LOAD_WEIGHTS", "LOAD_KEYS") else f["words"]
        least = timing.LOAD_SETUP
        if name == "LOAD_KEYS":  # an area for each plane, or for each token of each plane
            least *= f["planes"] * (f["tokens"] if f["token_stride"] != self.n else 1)
        return max(least, size / self.config.axi_bytes, chunks), size, 0.0

    def _store(self, name: str, f: Fields) -> tuple[float, float, float]:
        size = self._bytes(name, f)
        cycles = max(size / self.config.axi_bytes, f["words"])
        return timing.STORE_START + timing.STORE_FILL + cycles, size, 0.0

    def _matmul(self, name: str, f: Fields) -> tuple[float, float, float]:
        positions = f["images"] * f["out_height"] * f["out_width"]
        taps = f["kernel"] ** 2 * f["planes"] * f["blocks"]
        passes = self.passes if f["delta"] else self.digits
        cycles = -(-positions // self.config.rows) * taps * passes
        return cycles + timing.array_fill(self.config), 0.0, 0.0

    def _constants(self, name: str, f: Fields) -> tuple[float, float, float]:
        # One valid channel of an image per cycle; all take the mean number of channels.
        encodings = self.layout.network.encodings.values()
        channels = [encoding.channels for encoding in encodings if encoding.norm]
        mean = sum(channels) / len(channels)
        return mean * self.layout.batch + timing.MOMENTS_FILL, 0.0, 0.0

    def _vector(self, name: str, f: Fields) -> tuple[float, float, float]:
        if name == "SOFTMAX":
            return timing.softmax(self.config, f["tokens"], f["keys"]), 0.0, 0.0
        if name in ("NORMALISE_ROWS", "NORMALISE_TOKENS"):
            return f["tokens"] * f["planes"] + timing.SOFTMAX_FILL, 0.0, 0.0
        return f["words"] + timing.REQUANTISE_FILL, 0.0, 0.0

    def _engine(self, name: str, f: Fields) -> tuple[float, float, float]:
        item, layout, n = self.described[f["descriptor"]], self.layout, self.n
        read: float
        written: float
        if isinstance(item, Stream):
            words = layout.planes(item.channels) * layout.plane_words(item)
            y = words * n * layout.y_bytes(item)
            if name == "READ":
                read, written = y, words * n
            else:
                read, written = y + self._change(item), y
        else:
            words = layout.operand_words(item.name)
            streams = [layout.network.streams[s] for s in item.streams]
            segments = words * n * layout.segment_bits(item) // 8
            x = words * n * 2
            corrections = delta_bytes(words, n, layout.network.knobs.inlier_bits) + (
                words * n * self.shares.correction * CORRECTION_WIDE_BYTES
            )
            if name == "PREPARE":
                y = sum(layout.planes(s.channels) * layout.plane_words(s) * n * layout.y_bytes(s)
                        for s in streams)  # fmt: skip
                read, written = x + y, segments + corrections
            else:
                dy = sum(map(self._change, streams))
                read, written = x + dy + segments + corrections, x
        port = self.config.near_data_bytes
        cycles = max(words, read / port, written / port) + self.config.near_data_latency
        return cycles, 0.0, read + written

    def _change(self, stream: Stream) -> float:
        """Bytes of a stream's compressed dy."""
        words = self.layout.planes(stream.channels) * self.layout.plane_words(stream)
        wide = words * self.n * self.shares.change * self.layout.y_bytes(stream)
        return delta_bytes(words, self.n, stream.delta_bits) + wide
