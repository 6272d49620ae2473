"""Hardware configuration: one frozen dataclass, named presets, checks that say what to change."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any


class ConfigError(ValueError):
    """An impossible hardware configuration; the message is one sentence with cause and remedy."""


@dataclass(frozen=True)
class HardwareConfig:
    """Everything that the simulator, the compiler and the RTL generator need to know.

    Words: input scratchpad = one group of `group` 9-bit operands; weight scratchpad = one group of
    int8 weights for each of `columns` output channels; accumulator scratchpad = one group of int32;
    mask scratchpad = one group of segment indices and correction codes; parameter
    scratchpad = one group of 48-bit table entries.
    """

    name: str
    rows: int = 8  # PEs along output positions
    columns: int = 8  # PEs along output channels
    group: int = 16  # narrow lanes of a PE = consecutive channels of a group (n)
    full_lanes: int = 2  # wide lanes of a PE (m)
    inlier_bits: int = 3  # k; narrow lanes take k + 1 signed bits
    input_words: int = 8192
    weight_words: int = 2048
    accumulator_words: int = 4096
    mask_words: int = 4096
    parameter_words: int = 2048
    row_words: int = 4096  # softmax reciprocals, one per query row
    axi_bytes: int = 16  # per cycle, read and write channels alike
    memory_latency: int = 100  # cycles from request to first beat
    near_data_bytes: int = 64  # per cycle and direction, between near-data engine and banks
    near_data_latency: int = 40  # cycles: row activation and column read of a DRAM bank, ~30 ns
    queue_depth: int = 16  # instructions that wait in each queue
    bitmap_words: int = 1024  # outlier bitmaps between LOAD_DELTAS and LOAD_OUTLIERS
    engine_words: int = 256  # table words inside the near-data engine
    counter_entries: int = 256  # encodings and sources, or streams, that counters tell apart
    frequency_mhz: int = 1000

    def __post_init__(self) -> None:
        self._check()

    def _check(self) -> None:
        positive = (
            "rows columns group full_lanes inlier_bits input_words weight_words accumulator_words "
            "mask_words parameter_words row_words axi_bytes near_data_bytes frequency_mhz "
            "memory_latency near_data_latency queue_depth bitmap_words engine_words counter_entries"
        ).split()
        for field in positive:
            value = getattr(self, field)
            if type(value) is not int or value < 1:
                raise ConfigError(
                    f"config '{self.name}': {field} is {value!r}; it must be a whole number of at "
                    "least 1."
                )
        if not isinstance(self.name, str):
            raise ConfigError(f"config '{self.name}': its name is no string; choose one.")
        if self.inlier_bits not in (3, 4, 5):
            raise ConfigError(
                f"config '{self.name}': inlier_bits is {self.inlier_bits}; choose 3, 4 or 5."
            )
        if self.full_lanes > self.group:
            raise ConfigError(
                f"config '{self.name}': {self.full_lanes} full lanes exceed the group of "
                f"{self.group}; lower full_lanes or raise group."
            )
        if self.group % 8 or (self.group % self.columns and self.columns % self.group):
            raise ConfigError(
                f"config '{self.name}': group {self.group} must be a multiple of 8 and divide or "
                f"be divided by columns {self.columns}."
            )
        if self.axi_bytes % self.group:
            needed = -(-self.axi_bytes // self.group) * self.group
            raise ConfigError(
                f"config '{self.name}': axi_bytes {self.axi_bytes} must be a multiple of the "
                f"group of {self.group} int8 operands; use {needed}."
            )

    @classmethod
    def load(cls, path: Path) -> HardwareConfig:
        """A configuration from a JSON object of fields; absent ones are those of `nano`, an absent
        name is the file's. Raises ConfigError for anything else."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"cannot read config {path}: {error.strerror}; check the path."
            ) from None
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"config {path} is no JSON ({error}); correct it.") from None
        if not isinstance(data, dict):
            raise ConfigError(f"config {path} is no JSON object of fields; write one.")
        known = [field.name for field in fields(cls)]
        unknown = [name for name in data if name not in known]
        if unknown:
            raise ConfigError(
                f"config {path} has an unknown field '{unknown[0]}'; fields are {', '.join(known)}."
            )
        return cls(**{"name": path.stem, **data})

    def to_json(self) -> dict[str, Any]:
        """All fields as a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> HardwareConfig:
        """Inverse of `to_json`; raises ConfigError on unknown fields or impossible values."""
        try:
            return cls(**data)
        except TypeError as error:
            raise ConfigError(f"hardware config has wrong fields ({error}).") from None


NANO = HardwareConfig(name="nano")
# Its near-data port has the widest beat of AXI4.
EDGE = replace(
    NANO, name="edge", rows=32, columns=32, input_words=65536, weight_words=8192,
    accumulator_words=32768, mask_words=32768, axi_bytes=64, near_data_bytes=128,
    bitmap_words=4096,
)  # fmt: skip
# Cambricon-D, sections VI-C and VII: 128x128 PEs of 60 + 4 lanes, 64/64/32 MB, 1.5 TB/s, 1 GHz.
# Of a group of 64 operands up to 4 take the full lanes. Words follow from the megabytes (an operand
# word is 72 bytes). The bus moves whole groups, so 1,500 bytes per cycle become 1,536 (2.4 % more).
# The paper states no near-data bandwidth: four times the bus, as in nano, is our choice, as are the
# bitmaps of a map of 256 x 256 and counters for networks of a thousand boundaries.
PAPER = HardwareConfig(
    name="paper", rows=128, columns=128, group=64, full_lanes=4, input_words=932067,
    weight_words=8192, accumulator_words=131072, mask_words=131072, axi_bytes=1536,
    near_data_bytes=6144, bitmap_words=65536, counter_entries=1024,
)  # fmt: skip
# Not the paper's: its array with groups of 128 and 8 full lanes, for maps of 512 x 512, which its
# scratchpads do not hold. Sizes are our choice: all words that instructions can address, which are
# four planes of such a map, and the bitmaps of one.
LARGE = replace(
    PAPER, name="large", group=128, full_lanes=8, input_words=1 << 20, accumulator_words=1 << 20,
    mask_words=1 << 20, parameter_words=4096, bitmap_words=1 << 18, engine_words=1024,
)  # fmt: skip
PRESETS = {config.name: config for config in (NANO, EDGE, PAPER, LARGE)}


def preset(name: str) -> HardwareConfig:
    """The named preset; raises ConfigError for an unknown name."""
    if name not in PRESETS:
        raise ConfigError(f"unknown config '{name}'; presets are {', '.join(PRESETS)}.")
    return PRESETS[name]


def resolve(name: str) -> HardwareConfig:
    """The named preset, or the configuration in a JSON file; raises ConfigError for neither."""
    if name in PRESETS:
        return PRESETS[name]
    path = Path(name)
    if path.suffix == ".json" or path.is_file():
        return HardwareConfig.load(path)
    raise ConfigError(
        f"unknown config '{name}'; choose {', '.join(PRESETS)}, or the path of a .json file with "
        "the fields of a configuration."
    )
