"""Lanes of a word: packed fields of a width known at run time, counts, outliers in their places."""

from __future__ import annotations

from amaranth import Array, Cat, Const, Module, Mux, Signal, Value, signed


def unpack(
    m: Module, name: str, data: Value, bits: Value, lanes: int, widths: range, is_signed: bool
) -> list[Signal]:
    """Lane i of `data` at bits i*k, k = `bits` in `widths`; 0 for another k."""
    widest = widths[-1]
    shape = signed(widest) if is_signed else widest
    values = [Signal(shape, name=f"{name}_{i}") for i in range(lanes)]
    with m.Switch(bits):
        for k in widths:
            with m.Case(k):
                for i, value in enumerate(values):
                    piece = data[i * k : (i + 1) * k]
                    m.d.comb += value.eq(piece.as_signed() if is_signed else piece)
    return values


def pack(m: Module, name: str, values: list[Value], bits: Value, widths: range) -> Signal:
    """Inverse of `unpack`: the low `bits` bits of each lane, behind each other."""
    word = Signal(len(values) * widths[-1], name=name)
    with m.Switch(bits):
        for k in widths:
            with m.Case(k):
                m.d.comb += word.eq(Cat(value[:k] for value in values))
    return word


def total(values: list[Value]) -> Value:
    """Sum as a tree."""
    while len(values) > 1:
        pairs = [a + b for a, b in zip(values[::2], values[1::2], strict=False)]
        values = pairs + values[len(pairs) * 2 :]
    return values[0]


def ones(bits: Value) -> Value:
    """Number of set bits."""
    return total([bits[i] for i in range(len(bits))])


def before(bits: Value) -> list[Value]:
    """Number of set bits below each bit: a parallel prefix sum."""
    counts: list[Value] = [bits[i] for i in range(len(bits))]
    distance = 1
    while distance < len(counts):
        counts = [
            (counts[i] + counts[i - distance])[: (i + 1).bit_length()] if i >= distance
            else counts[i] for i in range(len(counts))
        ]  # fmt: skip
        distance *= 2
    return [Const(0, 1), *counts[:-1]]


def spread(bitmap: Value, places: list[Value], inliers: list[Value], list_: Value, wide: Value,
           bits: int) -> list[Value]:  # fmt: skip
    """Values of a word: inliers, and where `bitmap` is set the outlier at `places` of `list_`,
    entries of 4 bytes with `wide`, else of 2; `bits` bits each."""
    values = []
    for i, inlier in enumerate(inliers):
        short = Array(list_[j * 16 : (j + 1) * 16].as_signed() for j in range(i + 1))
        value: Value = short[places[i]]
        if bits > 16:
            long = Array(list_[j * 32 : (j + 1) * 32].as_signed() for j in range(i + 1))
            value = Mux(wide, long[places[i]], value)
        values.append(Mux(bitmap[i], value, inlier)[:bits].as_signed())
    return values


def compact(flags: Value, places: list[Value], values: list[Value], bits: int) -> Value:
    """The flagged values behind each other, `bits` bits each; what follows them is 0."""
    count = len(values)
    slots = []
    for j in range(count):
        terms = [
            (values[i].as_signed() | Const(0, signed(bits)))[:bits]
            & (flags[i] & (places[i] == j)).replicate(bits)
            for i in range(j, count)
        ]
        while len(terms) > 1:
            pairs = [a | b for a, b in zip(terms[::2], terms[1::2], strict=False)]
            terms = pairs + terms[len(pairs) * 2 :]
        slots.append(terms[0])
    return Cat(slots)


def lane_mask(limit: Value, lanes: int) -> Value:
    """One bit per lane below `limit`."""
    return Cat(limit > i for i in range(lanes))
