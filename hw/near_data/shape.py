"""Dimensions of the near-data engine that follow from the configuration."""

from __future__ import annotations

from dataclasses import dataclass

from signmask.hw.spec.config import ConfigError, HardwareConfig
from signmask.hw.spec.engine_timing import READ_SLOTS, WRITE_SLOTS, frame_words

DELTA_BITS = 16  # widest inliers of dy
CORRECTION_BITS = 8  # widest inliers of correction codes
RESIDUE_BITS = 15
SEGMENT_BITS = 3
RING = 8  # entries of the ring of frames, at least READ_SLOTS

# Read streams, in the order in which a frame fetches them; the lists follow when they are counted.
DY, CORRECTION, RAW, X_HAT, SEGMENTS, NOTHING, DY_LIST, CORRECTION_LIST = range(8)
AREAS = (DY, CORRECTION, RAW, X_HAT, SEGMENTS, NOTHING)
TABLES = 8  # descriptor and tables, in the tags of the read channel

# Write streams, in the order in which a frame drains: x^, y, codes or correction areas; segments;
# correction lists or residues; gains or sums.
OUT_WORDS, OUT_SEGMENTS, OUT_LIST, OUT_TABLE = range(4)
OUTS = 4


def ceil_power(value: int) -> int:
    """The least power of two that is no less than a positive value."""
    return 1 << (value - 1).bit_length()


def granule(*sizes: int) -> int:
    """The greatest power of two that divides all sizes."""
    joined = 0
    for size in sizes:
        joined |= size
    return joined & -joined


@dataclass(frozen=True)
class Shape:
    """Sizes in bytes, words and beats; raises ConfigError for beats that are no power of two."""

    config: HardwareConfig

    def __post_init__(self) -> None:
        beat = self.config.near_data_bytes
        if beat & (beat - 1) or beat < 8:
            raise ConfigError(
                f"config '{self.config.name}': near_data_bytes is {beat}; the near-data engine "
                "takes a power of two of at least 8."
            )

    @property
    def n(self) -> int:
        """Lanes of a word."""
        return self.config.group

    @property
    def beat(self) -> int:
        """Bytes of a beat."""
        return self.config.near_data_bytes

    @property
    def beat_bits(self) -> int:
        """Bits of a byte's place within a beat."""
        return self.beat.bit_length() - 1

    @property
    def words(self) -> int:
        """Most words of a frame, a power of two."""
        return frame_words(self.config)

    def read_beats(self, chunk: int) -> int:
        """Beats that a read buffer of `chunk` bytes per word holds."""
        return READ_SLOTS * (-(-self.words * chunk // self.beat) + 1) + 2

    def write_beats(self, chunk: int) -> int:
        """Beats that a write buffer of `chunk` bytes per word holds."""
        return WRITE_SLOTS * (-(-self.words * chunk // self.beat) + 1) + 2

    def packed(self, bits: int) -> int:
        """Bytes of a word of `bits` bits per lane."""
        return self.n * bits // 8
