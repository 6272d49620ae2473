"""Cycles of the near-data engine: the rules of its control, frame by frame.

The engine fetches, computes and writes *frames* of up to `frame_words` words. The simulator charges
what these functions give; the RTL takes its dimensions from here and must meet them.
"""

from __future__ import annotations

from signmask.hw.spec.config import HardwareConfig

READ_SLOTS = 7  # frames between their fetch and their last read from the buffers
WRITE_SLOTS = 4  # frames between their first word and the last beat that leaves the buffers
LOOKAHEAD = 4  # frames whose areas are asked for before the first one's lists

# Stages of a word, from its issue: last read of a read buffer, last push to a write buffer.
FREE_STAGE = {"PREPARE": 8, "UPDATE_CODES": 11, "UPDATE_STREAM": 2, "READ": 0}
FINISH_STAGE = {"PREPARE": 13, "UPDATE_CODES": 14, "UPDATE_STREAM": 9, "READ": 5}


def frame_words(config: HardwareConfig) -> int:
    """Most words of a frame: a power of two, of which one bit per lane fits a beat."""
    words = max(1, 8 * config.near_data_bytes // config.group)
    return 1 << (words.bit_length() - 1)
