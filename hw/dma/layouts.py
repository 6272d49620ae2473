"""What the stages of the load unit hand on to each other."""

from __future__ import annotations

from math import gcd

from amaranth.lib import data, enum

from signmask.hw.dma.bursts import SIZE_BITS
from signmask.hw.fetch import bus_bytes
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.timing import LOAD_BYTES, LOAD_SETUP, weight_chunk

BASE_BITS = 24
TAKE_BITS = 26
COUNT_BITS = 24


class Landing(enum.Enum, shape=4):  # type: ignore[call-arg]
    """Where the chunks of an area go."""

    WEIGHTS = 0  # weight words; also keys that follow each other, whose words lie apart
    VALUES = 1  # transposed codes to weight words
    INPUT = 2
    PARAMETER = 3
    RAW = 4
    DELTAS = 5
    OUTLIERS = 6
    SEGMENTS = 7
    RESIDUES = 8
    KEYS = 9  # one token to a column of a weight word


class LoadShape:
    """Sizes of the load unit that follow from the configuration.

    chunk: bytes of the widest chunk; weight: of a weight word's chunk, of which there are `parts`;
    column: of a transposed chunk, `blocks` of a token, `subs` of them in a weight word of more
    channels than a group has; depth: areas in flight that cover the memory's latency.
    """

    def __init__(self, config: HardwareConfig) -> None:
        n = config.group
        self.beat = bus_bytes(config)
        self.lanes, self.columns = n, config.columns
        self.chunk = max(self.beat, LOAD_BYTES * n)
        self.weight = weight_chunk(config)
        self.parts = config.columns * n // self.weight
        self.column = gcd(n, config.columns)
        self.blocks = n // self.column
        self.subs = config.columns // self.column
        self.depth = (config.memory_latency + 16) // LOAD_SETUP + 2
        self.bitmaps = config.bitmap_words


def area_layout(shape: LoadShape) -> data.StructLayout:
    """An area of beats: bytes before it in its first beat, and its size in bytes."""
    return data.StructLayout({"skip": range(shape.beat), "size": SIZE_BITS})


def goal_layout(shape: LoadShape) -> data.StructLayout:
    """An area's chunks: `takes` of `size` bytes, the last of `last` bytes, to words from `base` on,
    `stride` apart. `bits`: of a packed field; `entry`: bytes of an integer (2**entry)."""
    return data.StructLayout(
        {
            "landing": Landing, "to_mask": 1, "bits": 5, "entry": 2,
            "base": BASE_BITS, "stride": 16,
            "size": range(shape.chunk + 1), "last": range(shape.chunk + 1), "takes": TAKE_BITS,
        }
    )  # fmt: skip


def landing_layout(shape: LoadShape) -> data.StructLayout:
    """A goal; `sub`: which part of a weight word's columns it has; `row`: the column of its token,
    or the lane of its first one; `final`: with this area the instruction is done."""
    goal = {name: field.shape for name, field in goal_layout(shape)}
    rows = range(max(shape.columns, shape.lanes))
    return data.StructLayout(goal | {"sub": range(max(2, shape.subs)), "row": rows, "final": 1})


def counted_layout() -> data.StructLayout:
    """What the bitmaps of one LOAD_DELTAS held: outliers, and words that have any."""
    return data.StructLayout({"outliers": COUNT_BITS, "words": COUNT_BITS})
