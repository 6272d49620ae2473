"""Test vectors of every function in `numerics`: exhaustive where small, else corners and seeded
random arguments. Ports of the arithmetic (numpy, torch, hardware) must reproduce all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from random import Random
from typing import Any, NamedTuple

from signmask.hw.spec import numerics

RANDOM_VECTORS = 500  # per function, on top of the corners


class Vector(NamedTuple):
    """Arguments of a function of `numerics` and its result."""

    arguments: tuple[Any, ...]
    expected: Any


Arguments = Iterator[tuple[Any, ...]]


def _signed(random: Random, bits: int) -> int:
    """A random value of a random width up to `bits`, so that small values are common."""
    width = random.randint(1, bits)
    return random.randint(-(1 << (width - 1)), (1 << (width - 1)) - 1)


def _positive(random: Random, bits: int) -> int:
    return random.randint(1, (1 << random.randint(1, bits)) - 1)


def _corners(bits: int) -> tuple[int, ...]:
    top = (1 << (bits - 1)) - 1
    return (-top - 1, -top, -1, 0, 1, top - 1, top)


def _saturate(random: Random) -> Arguments:
    yield from product(range(-300, 301), (2, 8, 9))
    for bits in (16, 24, 32):
        edge = 1 << (bits - 1)
        for value in (-edge - 1, -edge, edge - 1, edge):
            yield value, bits
    for _ in range(RANDOM_VECTORS):
        yield _signed(random, 48), random.choice((8, 9, 16, 24, 32))


def _shift_round(random: Random) -> Arguments:
    yield from product(range(-40, 41), range(-3, 7))
    yield from product(_corners(62), (1, 31, 61, 62, 63))
    for _ in range(RANDOM_VECTORS):
        yield _signed(random, 56), random.randint(-6, 62)


def _requantise(random: Random) -> Arguments:
    yield from product(_corners(32), (-(1 << 15), -1, 0, 1, (1 << 15) - 1), (0, 1, 15, 30))
    for _ in range(RANDOM_VECTORS):
        yield _signed(random, 32), _signed(random, 16), random.randint(0, 40)


def _divide_round(random: Random) -> Arguments:
    yield from product(range(-20, 21), range(1, 9))
    for _ in range(RANDOM_VECTORS):
        yield _signed(random, 60), _positive(random, 40)


def _reciprocal_sqrt(random: Random) -> Arguments:
    for value in range(1, 600):
        yield (value,)
    for bits in range(10, 63):
        for near in (-1, 0, 1):
            yield ((1 << bits) + near,)
    for root in (2**23 + 1, 2**24 - 1, 2**30 + 7, 3037000499):
        for near in (-1, 0, 1):
            yield (root * root + near,)
    for _ in range(RANDOM_VECTORS):
        yield (_positive(random, 62),)


def _group_moments(random: Random) -> Arguments:
    yield 0, 0, 1, 1
    yield -5, 25, 1, 1
    for _ in range(RANDOM_VECTORS):
        count, spread = random.choice((1, 4, 64, 96, 1024, 4096)), random.randint(1, 16)
        values = [_signed(random, spread) for _ in range(min(count, 16))]
        repeat = count // len(values)
        count = repeat * len(values)
        total, squares = repeat * sum(values), repeat * sum(v * v for v in values)
        yield total, squares, count, _positive(random, 20)


def _move_by_trend(random: Random) -> Arguments:
    one = 1 << numerics.TREND_FRACTION
    yield 0, 1 << 22, 0, 0, one, one
    for _ in range(RANDOM_VECTORS):
        yield (
            _signed(random, 24), random.randint(1 << 22, 1 << 23), _signed(random, 24),
            _signed(random, 24), random.randint(one // 4, one * 4),
            random.randint(one // 4, one * 4),
        )  # fmt: skip


def _channel_constants(random: Random) -> Arguments:
    yield 0, 1 << 22, -23, 1, 0, 24, 8
    for _ in range(RANDOM_VECTORS):
        r, h = random.randint(1 << 22, 1 << 23), random.randint(-23, 8)
        yield (
            _signed(random, 24), r, h, _signed(random, 36), _signed(random, 40),
            random.randint(20, 50), random.randint(-4, 12),
        )  # fmt: skip


def _normalise_token(random: Random) -> Arguments:
    top = (1 << 31) - 1
    for centred in (True, False):
        yield (0,) * 8, 8, 1, 0, 40, centred
        yield (5,) * 6 + (0, 0), 6, 1, 0, 30, centred  # no deviation but epsilon's
        yield (-top - 1,) * 4, 4, 3, 2, 24, centred
        yield (top, -top - 1) * 4, 8, 1, 3, 24, centred
        yield (top,) + (0,) * 7, 8, 9, 2, 24, centred  # a lone value saturates
        yield (top, -top - 1), 2, 1, 31, 54, centred
        yield (-3, 5), 65535, (1 << 47) - 1, 0, 24, centred
    for _ in range(RANDOM_VECTORS):
        count, padding = random.choice((1, 2, 8, 24, 48)), random.choice((0, 0, 3, 8))
        bits = random.randint(1, 32)
        offset = _signed(random, bits)
        values = (_signed(random, bits) + offset for _ in range(count))
        needed = max(0, bits + count.bit_length() - 30)
        yield (
            tuple(numerics.saturate(v, 32) for v in values) + (0,) * padding, count,
            _positive(random, 47), min(31, needed + random.choice((0, 0, 1, 5))),
            random.randint(24, 54), random.random() < 0.7,
        )  # fmt: skip


def _pre_activation(random: Random) -> Arguments:
    yield from product(_corners(16), _corners(24), (0, -(1 << 36)), (0, 12))
    for _ in range(RANDOM_VECTORS):
        y = _signed(random, random.choice((16, 32)))
        yield y, _signed(random, 24), _signed(random, 40), random.randint(0, 24)


def _segment_index(random: Random) -> Arguments:
    yield 3, ()
    for z in range(-6, 7):
        yield from ((z, (0,)), (z, (-2, 0, 3)), (z, (-5, -4, -1, 0, 1, 2, 5)), (z, (1, 1, 1)))
    for _ in range(RANDOM_VECTORS):
        breaks = tuple(sorted(_signed(random, 24) for _ in range(random.choice((1, 3, 7)))))
        yield random.choice((_signed(random, 24), random.choice(breaks))), breaks


def _activation_code(random: Random) -> Arguments:
    for _ in range(2 * RANDOM_VECTORS):
        shift = random.randint(0, 24)
        z, slope = _signed(random, 24), _signed(random, 18)
        low, high = random.choice(((-128, 127), (-127, 127), (0, 127), (-120, 100)))
        yield z, slope, _signed(random, 40), shift, low, high


def _masked_delta(random: Random) -> Arguments:
    yield from ((dz, 3, 2, residue, carry) for dz in range(-9, 10) for residue in (-1, 0, 1)
                for carry in (0, 1, 2))  # fmt: skip
    for _ in range(RANDOM_VECTORS):
        shift = random.randint(0, 24)
        carry = random.randint(0, min(shift, 8))
        residue = random.randint(-(1 << carry) // 2, (1 << carry) // 2)
        yield _signed(random, 24), _signed(random, 18), shift, residue, carry


def _product_code(random: Random) -> Arguments:
    edges = (-255, -1, 0, 1, 255)
    yield from product(edges, edges, (0, 1, 65535), (0, 9, 63), (-128, 0, 127))
    for _ in range(RANDOM_VECTORS):
        yield (
            _signed(random, 9), _signed(random, 9), random.randint(0, 65535),
            random.randint(0, 36), random.randint(-128, 127),
        )  # fmt: skip


def _encode_group(random: Random) -> Arguments:
    for deltas in product((-300, -5, 0, 3, 4), repeat=3):
        yield deltas, 3, 1, False
        yield deltas, 3, 1, True
    for _ in range(RANDOM_VECTORS):
        bits, spill = random.choice((3, 4, 5)), random.random() < 0.3
        size = random.choice((8, 16, 64))
        deltas = tuple(_signed(random, random.choice((bits, bits + 1, 11))) for _ in range(size))
        yield deltas, bits, random.randint(0, 4), spill


def _digit_passes(random: Random) -> Arguments:
    yield from product(range(1, 33), (3, 4, 5))


def _spread_code(random: Random) -> Arguments:
    for spread in (1, 2, 3, 4, 5, 16):
        yield from ((value, spread) for value in range(-128 * spread, 127 * spread + 1))


def _delta_passes(random: Random) -> Arguments:
    yield from product(range(65), (1, 2, 3, 4), (3, 4, 5))


def _softmax_row(random: Random) -> Arguments:
    table = tuple(numerics.exponential_table())
    yield (7,), 1, 0, table
    yield (-5, -5, -5, -5), 300, 4, table
    for _ in range(RANDOM_VECTORS // 2):
        scores = tuple(_signed(random, 22) for _ in range(random.choice((1, 2, 16, 64))))
        yield scores, random.randint(0, (1 << 15) - 1), random.randint(0, 30), table


def _attention_code(random: Random) -> Arguments:
    for _ in range(RANDOM_VECTORS):
        total = random.randint(127, 127 * 256)
        product_ = random.randint(-128 * total, 127 * total)
        reciprocal = (1 << numerics.RECIPROCAL_FRACTION) // total
        yield (
            product_, reciprocal, random.randint(0, (1 << 15) - 1), random.randint(0, 32),
            random.randint(-128, 127),
        )  # fmt: skip


def _exponential_table(random: Random) -> Arguments:
    yield ()


_GENERATORS: dict[str, Callable[[Random], Arguments]] = {
    "saturate": _saturate,
    "shift_round": _shift_round,
    "requantise": _requantise,
    "divide_round": _divide_round,
    "reciprocal_sqrt": _reciprocal_sqrt,
    "group_moments": _group_moments,
    "move_by_trend": _move_by_trend,
    "channel_constants": _channel_constants,
    "normalise_token": _normalise_token,
    "pre_activation": _pre_activation,
    "segment_index": _segment_index,
    "activation_code": _activation_code,
    "masked_delta": _masked_delta,
    "product_code": _product_code,
    "encode_group": _encode_group,
    "digit_passes": _digit_passes,
    "spread_code": _spread_code,
    "delta_passes": _delta_passes,
    "exponential_table": _exponential_table,
    "softmax_row": _softmax_row,
    "attention_code": _attention_code,
}
FUNCTIONS = tuple(_GENERATORS)


def vectors(function: str, seed: int = 0) -> list[Vector]:
    """Vectors of a function of `numerics` named in `FUNCTIONS`; the same for the same seed.

    Raises ValueError for another name.
    """
    if function not in _GENERATORS:
        raise ValueError(f"no vectors for '{function}'; functions are {', '.join(FUNCTIONS)}.")
    scalar = getattr(numerics, function)
    arguments = _GENERATORS[function](Random(f"{function} {seed}"))
    return [Vector(a, scalar(*a)) for a in arguments]
