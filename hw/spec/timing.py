"""Cycle formulas of every unit: the simulator charges them, the RTL must meet them.

Pure functions of the hardware configuration and of what an instruction does. A unit accepts its
next instruction when it is no longer occupied; an instruction is done (its tokens leave) when its
last result is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd

import numpy as np

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.isa import INSTRUCTION_BYTES, NORM_RECORD

# Array pipeline, one pass per cycle: positions and taps, address, data, outliers found, outliers
# ranked, lanes filled; multiply, adder tree, combine narrow and full lanes, accumulate; write back.
ARRAY_OPERAND = 5  # from a tap's position to the first register of its PEs
ARRAY_PRODUCT = 3  # multiply, combine, accumulate: what the PE adds to its tree
ARRAY_WRITE = 1
TREE_RADIX = 4  # terms that one stage of the adder tree adds up: two levels

# Load and store unit.
LOAD_SETUP = 3  # accept, bytes, beats: then the first request leaves
LOAD_FILL = 2  # beat to queue, word to scratchpad
LOAD_COUNTED = 3  # from the last bitmap's chunk until their outliers are known: record, queue
LOAD_BYTES = 4  # widest chunk of a word, per lane
STORE_START = 1  # accept
# Bytes, beats; read, data, two stages of the compressor, chunk to queue; the beat itself.
STORE_FILL = 2 + 4 + 1
STORE_ANSWER = 1  # the answer to the last write is counted

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
# Positions of a frame (an image of a plane): words / frames of 20 bits, two with the start and then
# two per cycle.
FRAME_DIVIDE_CYCLES = 9
FRAME_WORDS = 16  # frames of so many words end only after the division
# One result bit per stage.
ROOT_CYCLES = 24  # result bits of the integer square root of 48 bits, one per stage
DIVIDE_CYCLES = 24  # quotient bits of 2**46 / root, and of a softmax row's reciprocal
# Behind the maximum's tree: read (2), subtract, multiply (2), round, table; row's sum, reciprocal.
SOFTMAX_FILL = 2 + 5 + 1 + DIVIDE_CYCLES
NORMALISE_FILL = 2 + 7  # times reciprocal (2), round, multiply (2), round, zero and saturate
MULTIPLY_FILL = 2 + 6  # less zeros, product, multiply (2), round, zero and saturate

# Normalisation: two walks of one channel per cycle, the second behind the first group's moments.
# Read, select, add up; products, variance, even shift (2); root; reciprocal; wait for the channels.
MOMENTS_FILL = 3 + 4 + ROOT_CYCLES + DIVIDE_CYCLES + 1
CHANNEL_FILL = 4 + 2 + 1 + 2 + 2  # read (4), gain*r (2), shift, A*mean (2), shift, subtract
TREND_FILL = 4  # read the group's ratio, multiply r (2), round
RECORD_FILL = 2  # address and data of a norm record
# A token's moments: read, shift, square (2), add up behind the trees; variance, even shift; root;
# reciprocal. Then the second walk: times r (2), round and saturate behind read and subtraction.
TOKEN_SUMS = 5
TOKEN_FILL = TOKEN_SUMS + 4 + ROOT_CYCLES + DIVIDE_CYCLES + 2 + 4


def beats(config: HardwareConfig, size: int, address: int = 0) -> int:
    """Bus cycles of one contiguous area of `size` bytes at a byte address."""
    return -(-(address % config.axi_bytes + size) // config.axi_bytes)


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


def weight_chunk(config: HardwareConfig) -> int:
    """Bytes of a weight word that the load unit writes per cycle."""
    return gcd(max(config.axi_bytes, LOAD_BYTES * config.group), config.columns * config.group)


def landing(config: HardwareConfig, address: int, size: int, chunks: int, chunk: int) -> int:
    """Cycles from the first beat of an area to its last chunk: `chunks` of `chunk` bytes, `size`
    in all, are taken one per cycle, each when its last byte has come."""
    width, offset = config.axi_bytes, address % config.axi_bytes
    first = (offset + min(chunk, size) - 1) // width if size else 0
    # A short last chunk may share its beat with the chunk before.
    before = (offset + (chunks - 1) * chunk - 1) // width if chunks > 1 else -1
    return max(beats(config, size, address), chunks + first, before + 2)


def load_occupied(landed: int) -> int:
    """Cycles for which an area that lands in `landed` cycles occupies the load unit: the areas
    behind it never wait for each other's beats."""
    return max(LOAD_SETUP, landed)


def load_done(config: HardwareConfig, landed: int) -> int:
    """Cycles from the start of a load of one area until it is done."""
    return LOAD_SETUP + config.memory_latency + landed + LOAD_FILL


def key_areas(config: HardwareConfig, fields: Mapping[str, int]) -> tuple[np.ndarray, int]:
    """Addresses of the areas of LOAD_KEYS, int64 (areas,) in order, and the tokens of each: whole
    planes where their tokens follow each other, else single tokens."""
    starts = fields["address"] + fields["plane_stride"] * np.arange(fields["planes"])
    if fields["token_stride"] == config.group:
        return starts, fields["tokens"]
    tokens = fields["token_stride"] * np.arange(fields["tokens"])
    return (starts[:, None] + tokens).reshape(-1), 1


def list_landing(config: HardwareConfig, address: int, sizes: np.ndarray) -> tuple[int, int]:
    """(landing, occupied) of a list whose outliers of each word take `sizes` bytes (1-D, all above
    0): a word is written when the beat of its last outlier has come."""
    words, width = len(sizes), config.axi_bytes
    if not words:
        return 0, LOAD_SETUP
    offset = address % width
    ends = offset + np.cumsum(sizes)
    count = -(-int(ends[-1]) // width)
    order = np.arange(words)
    taken = np.maximum.accumulate((ends - 1) // width - order) + order  # in cycles after its beat
    room = max(width, LOAD_BYTES * config.group) + width
    # What the byte queue holds when a beat comes: all before it, less the words taken by then.
    came = np.arange(count)
    gone = np.concatenate([[offset], ends])[np.searchsorted(taken + 1, came)]
    landed = int(taken[-1]) + 1
    if (came * width - gone).max() > room:
        landed = _landing_of_full_queue(width, room, offset, sizes.tolist())
    return landed, max(LOAD_SETUP, count + words)


def _landing_of_full_queue(width: int, room: int, offset: int, sizes: list[int]) -> int:
    """Landing of a list, cycle by cycle: a beat comes while the queue holds at most `room`."""
    left, held, at, cycle = sum(sizes), 0, 0, 0
    kept = width - offset  # of the next beat
    while at < len(sizes):
        taken = sizes[at] if sizes[at] <= held else 0
        came = min(kept, left) if held <= room else 0
        held += came - taken
        left -= came
        at += taken > 0
        kept = width if came else kept
        cycle += 1
    return cycle - 1


def store_area(config: HardwareConfig, address: int, size: int, chunks: int) -> int:
    """Cycles of the store unit on an area of `chunks` equal chunks, `size` bytes in all: a chunk is
    read per cycle, a beat leaves when it is full."""
    offset, width, chunk = address % config.axi_bytes, config.axi_bytes, size // chunks
    count = beats(config, size, address)
    last = chunks - 1  # chunk whose arrival lets the last beat leave
    if count > 1:
        full = -(-((count - 1) * width - offset) // chunk)
        last = max(last, full, -(-(width - offset) // chunk) + count - 2)
    return STORE_FILL + last


def store_list(config: HardwareConfig, address: int, sizes: np.ndarray) -> int:
    """As `store_area`, of chunks of `sizes` bytes (1-D; some may be 0)."""
    width, words = config.axi_bytes, len(sizes)
    ends = address % width + np.cumsum(sizes)
    count = -(-int(ends[-1]) // width)
    order = np.arange(count)
    ready = np.searchsorted(ends, width * (order + 1))
    ready = np.minimum(ready, words - 1)  # the end lets a beat leave that is not full
    left = np.maximum.accumulate(ready - order) + order  # cycle of each beat, less one
    # What the packer holds when a chunk comes: all before it, less the beats that have left.
    held = ends[:-1] - width * np.searchsorted(left + 1, np.arange(1, words))
    last = int(left[-1])
    if words > 1 and held.max() > 2 * width:
        last = _last_of_full_packer(width, address % width, count, sizes.tolist())
    return STORE_FILL + last


def _last_of_full_packer(width: int, offset: int, count: int, sizes: list[int]) -> int:
    """Cycle of the last beat, less one: a chunk comes while the packer holds at most two beats."""
    held, at, cycle = offset, 0, 0
    while count:
        came = held <= 2 * width and at < len(sizes)
        ended = at == len(sizes)
        if held >= width or ended:
            held = max(0, held - width)
            count -= 1
        if came:
            held += sizes[at]
            at += 1
        cycle += 1
    return cycle - 2


def store_done(config: HardwareConfig, occupied: int) -> int:
    """Cycles from the start of a store until its last write is answered."""
    return occupied + config.memory_latency + STORE_ANSWER


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


def softmax(config: HardwareConfig, rows: int, keys: int) -> int:
    """Cycles of SOFTMAX: the second walk over the scores starts behind the first row's maximum, and
    the reciprocal of the last row's sum ends it. Trees find the maximum and the sum of a word."""
    words = -(-keys // config.group)
    levels = (config.group - 1).bit_length()
    return rows * words + words + 2 * levels + SOFTMAX_FILL


def normalise_tokens(config: HardwareConfig, tokens: int, planes: int) -> int:
    """Cycles of NORMALISE_TOKENS: the second walk over the words starts behind the first token's
    moments. Trees add up the values of a word and their squares."""
    levels = (config.group - 1).bit_length()
    return vector(tokens * planes, planes + levels + TOKEN_FILL)


def normalisation(
    config: HardwareConfig, images: int, channels: Sequence[int], groups: int, trend: bool = False
) -> int:
    """Cycles of the normalisation unit; `channels` of each part. A plane with one channel takes two
    cycles; a trend needs two cycles for every word of its groups' tables and one for each group."""
    n, first = config.group, sum(channels) // groups
    ends = np.cumsum(channels)
    single = np.array(channels) % n == 1
    walk = int(ends[-1] + single.sum())
    begin = first + int((single & (ends < first)).sum())
    tables = groups + 2 * -(-groups // n) + TREND_FILL if trend else 0
    return tables + begin + MOMENTS_FILL + images * walk + CHANNEL_FILL


def constants(config: HardwareConfig, images: int, channels: Sequence[int], groups: int) -> int:
    """Cycles of CONSTANTS: the norm record is read, then the normalisation unit runs."""
    record = RECORD_FILL + -(-len(NORM_RECORD) // config.group)
    return record + normalisation(config, images, channels, groups)
