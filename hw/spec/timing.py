"""Cycle formulas of every unit: the simulator charges them, the RTL must meet them.

Pure functions of the hardware configuration and of what an instruction does. A unit accepts its
next instruction when it is no longer occupied; an instruction is done (its tokens leave) when its
last result is written.
"""

from __future__ import annotations

from math import ceil

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import INSTRUCTION_BYTES

# Array pipeline, one pass per cycle: positions and taps, address, data, outliers found, outliers
# ranked, lanes filled; multiply, adder tree, combine narrow and full lanes, accumulate; write back.
ARRAY_OPERAND = 5  # from a tap's position to the first register of its PEs
ARRAY_PRODUCT = 3  # multiply, combine, accumulate: what the PE adds to its tree
ARRAY_WRITE = 1
TREE_RADIX = 4  # terms that one stage of the adder tree adds up: two levels

FETCH_REQUEST = 1  # cycle of the first request for instructions, counted from the start pulse
IN_FLIGHT = 256  # instructions of one queue that have started and are not done

# Vector pipelines: from the start to the first word's data (2), the stages named below; the last
# stage's register is what is written. REQUANTISE serves QUANTISE too.
REQUANTISE_FILL = 2 + 5  # 32x17 multiply (2), round and shift, add table and stream, saturate
SUMS_FILL = 4  # shift, square (2), add; behind what REQUANTISE writes
QUANTISE_FILL = REQUANTISE_FILL
DIFFERENCE_STAGES = 3  # subtract and classify, select outliers, add to the previous code
ENCODE_RAW_FILL = 2 + 8 + DIFFERENCE_STAGES  # A*y+B (2), z, segment, line, slope*z (2), code
ENCODE_MASK_FILL = 2 + 7 + DIFFERENCE_STAGES  # A*dy (2), dz, slope*dz (2), correction, carry
ENCODE_SOURCE_FILL = 2 + DIFFERENCE_STAGES
COPY_FILL = 2 + 1
# Positions of a frame (an image of a plane): 18 bits of words / frames, two bits per cycle.
FRAME_DIVIDE_CYCLES = 9
FRAME_WORDS = 16  # frames of so many words end only after the division
SOFTMAX_FILL = 2 + 5 + 1  # subtract the maximum, multiply (2), round, table
SOFTMAX_PASSES = 3  # maximum; exponential and sum; write codes beside the reciprocal's division
NORMALISE_FILL = 2 + 7 + 1  # times reciprocal (2), round, multiply (2), round, zero and saturate

# One serial unit per SFU, one result bit per cycle.
MEAN_DIVIDE_CYCLES = 40  # quotient bits of a group mean: MEAN_FRACTION + 32
ROOT_CYCLES = 24  # result bits of the integer square root of 48 bits
DIVIDE_CYCLES = 24  # quotient bits of 2**46 / root
SCALE_CYCLES = 4  # channel constants: gain*r, shift, A*mean, subtract


def beats(config: HardwareConfig, size: int) -> int:
    """Bus cycles of one contiguous area of `size` bytes."""
    return -(-size // config.axi_bytes)


class Dispatch:
    """When instructions enter their queues, one after the other in program order.

    Cycle 0 is that of the start pulse. The first request leaves in cycle 1, its first beat comes
    memory_latency later and beats then follow at once, unless they wait on the bus. A register
    takes the beats of one instruction, or one beat of several instructions; its last beat is taken
    no earlier than in the cycle in which the register's previous instruction leaves for its queue.
    """

    def __init__(self, config: HardwareConfig) -> None:
        self._beats = max(1, -(-INSTRUCTION_BYTES // config.axi_bytes))  # per instruction
        self._fill = max(1, config.axi_bytes // INSTRUCTION_BYTES)  # instructions per beat
        self._left = 0
        self._taken = config.memory_latency + FETCH_REQUEST - 1
        self._entered = -1

    def head(self, room: int) -> int:
        """The first cycle in which the next instruction of the program can start, given the first
        cycle in which its queue has room for it."""
        entered = self._entered
        if not self._left:
            self._taken = max(self._taken + self._beats, entered)
            self._left = self._fill
        self._left -= 1
        self._entered = max(self._taken + 1, entered + 1, room)
        return self._entered + 1


def queue_room(start: int) -> int:
    """The first cycle in which the place of an instruction that starts in `start` is free."""
    return start + 1


def load_keys(config: HardwareConfig, bus_beats: int, words: int, transpose: bool) -> int:
    """Cycles that LOAD_KEYS occupies the load channel.

    Transposing writes one memory word (a token's n channels) into ceil(n / columns) weight words.
    """
    if not transpose:
        return bus_beats
    return max(bus_beats, -(-config.group // config.columns) * words)


def array_setup(config: HardwareConfig) -> int:
    """Cycles in which MATMUL finds the positions of the rows, by doubling: 1, 2, 4 ... rows."""
    rows = config.rows
    return rows.bit_length() - (rows & (rows - 1) == 0)


def adder_stages(group: int, full_lanes: int) -> int:
    """Stages of a PE's adder tree. Full lanes join it one stage late, they select their weight."""

    def stages(terms: int) -> int:
        return 0 if terms <= 1 else 1 + stages(-(-terms // TREE_RADIX))

    return max(stages(group), 1 + stages(full_lanes) if full_lanes else 0)


def array_fill(config: HardwareConfig) -> int:
    """Cycles of MATMUL beside its passes: it is accepted, places its rows, and the last pass runs
    through the pipeline."""
    depth = ARRAY_OPERAND + adder_stages(config.group, config.full_lanes) + ARRAY_PRODUCT
    return array_setup(config) + depth + ARRAY_WRITE


def vector(words: int, fill: int) -> int:
    """Cycles of a vector instruction at one word per cycle."""
    return words + fill


def frames(words: int, count: int, fill: int) -> int:
    """Cycles of a vector instruction over `count` frames (planes times images): short frames wait
    until the number of their positions is known."""
    wait = FRAME_DIVIDE_CYCLES if count != 1 and words < FRAME_WORDS * count else 0
    return vector(words, fill) + wait


def requantise(words: int, count: int, sums: bool) -> int:
    """Cycles of REQUANTISE over `count` frames; the last sums leave behind the last word."""
    return frames(words, count, REQUANTISE_FILL + (SUMS_FILL if sums else 0))


def softmax(words: int) -> int:
    """Cycles of SOFTMAX over `words` words of scores; the last row's serial division ends it."""
    return SOFTMAX_PASSES * words + DIVIDE_CYCLES + SOFTMAX_FILL


def constants(config: HardwareConfig, groups: int, images: int, planes: int, size: int) -> int:
    """Cycles of CONSTANTS: the descriptor's latency, that of the arrays it points to, `size` bytes
    of both, then the serial units per group and image, then one channel plane per cycle."""
    serial = groups * images * (MEAN_DIVIDE_CYCLES + ROOT_CYCLES + DIVIDE_CYCLES)
    return 2 * config.memory_latency + beats(config, size) + serial + planes * images + SCALE_CYCLES


def engine(config: HardwareConfig, words: int, size: int) -> int:
    """Cycles of a near-data engine instruction: one word per cycle or the bank bandwidth."""
    return max(words, ceil(size / config.near_data_bytes)) + config.memory_latency
