"""Expressions that the datapaths share: rounding shift, saturation, split products, sums."""

from __future__ import annotations

from collections.abc import Iterable

from amaranth import Cat, Const, Mux, Value

SPLIT = 12  # low bits of a multiplier that form the first of two partial products


def shift_round(value: Value, shift: Value) -> Value:
    """`numerics.shift_round` of a signed value by an unsigned shift (0: the value itself)."""
    doubled = Cat(Const(0, 1), value).as_signed() >> shift
    return (doubled + 1) >> 1


def saturate(value: Value, bits: int) -> Value:
    """`numerics.saturate`: a signed value clamped to `bits` signed bits."""
    if len(value) <= bits:
        return value
    top = value[bits - 1 :]
    edge = Const((1 << (bits - 1)) - 1, bits) ^ value[-1].replicate(bits)
    return Mux(top.all() | ~top.any(), value[:bits], edge).as_signed()


def partial_products(value: Value, multiplier: Value, split: int = SPLIT) -> tuple[Value, Value]:
    """Two products whose weighted sum (`join_products`) is value * multiplier, both signed: halves
    of the multiplier in one pipeline stage, their sum in the next."""
    return value * multiplier[:split], value * multiplier[split:].as_signed()


def join_products(low: Value, high: Value, split: int = SPLIT) -> Value:
    """The product of `partial_products`."""
    return low + high.shift_left(split)


def lanes_of(word: Value, count: int) -> list[Value]:
    """`word` as `count` signed entries of equal width, lane 0 in the lowest bits."""
    width = len(word) // count
    return [word[i * width : (i + 1) * width].as_signed() for i in range(count)]


def tree_sum(values: Iterable[Value]) -> Value:
    """Sum of at least one value, as a balanced tree of adders."""
    terms = list(values)
    while len(terms) > 1:
        pairs = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = pairs + terms[2 * len(pairs) :]
    return terms[0]
