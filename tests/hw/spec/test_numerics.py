from math import isqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from signmask.hw.spec import numerics, vectors

EXHAUSTIVE = {"digit_passes", "delta_passes", "spread_code", "exponential_table"}


@pytest.mark.parametrize("function", vectors.FUNCTIONS)
def test_vectors_repeat_and_are_not_trivial(function):
    first = vectors.vectors(function)
    assert first == vectors.vectors(function)
    assert len(first) >= (1 if function == "exponential_table" else 90)
    if function not in ("digit_passes", "delta_passes", "exponential_table"):
        assert len({str(v.expected) for v in first}) >= 8
    if function not in EXHAUSTIVE:
        assert first != vectors.vectors(function, seed=1)


def test_every_function_of_numerics_has_vectors():
    public = {
        name
        for name, value in vars(numerics).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", "") == numerics.__name__
    }
    assert public == set(vectors.FUNCTIONS)


def test_unknown_function_is_named_in_one_sentence():
    with pytest.raises(ValueError, match="no vectors for 'sine'; functions are saturate"):
        vectors.vectors("sine")


@given(st.integers(-(2**70), 2**70), st.integers(1, 70))
def test_shift_round_is_the_nearest_integer_half_up(value, shift):
    result = numerics.shift_round(value, shift)
    # -1/2 <= result - value / 2**shift < 1/2 rounded half up means: the error is in (-1/2, 1/2].
    error = (result << (shift + 1)) - 2 * value
    assert -(1 << shift) < error <= 1 << shift


@given(st.integers(-(2**40), 2**40), st.integers(1, 2**30))
def test_divide_round_is_the_nearest_integer_half_up(numerator, denominator):
    error = 2 * (numerics.divide_round(numerator, denominator) * denominator - numerator)
    assert -denominator < error <= denominator


@given(st.integers(1, 2**63 - 1))
def test_reciprocal_sqrt_is_accurate(value):
    r, h = numerics.reciprocal_sqrt(value)
    assert 2**22 <= r <= 2**23
    # r * sqrt(value) == 2**(46 + h) up to the two truncations, each below 2**-22.
    exponent = 2 * (46 + h) + 60
    square = r * r * value << 60 if exponent >= 0 else 0
    ratio = isqrt(square) / 2 ** (exponent / 2)
    assert abs(ratio - 1) < 2**-21


@given(
    st.lists(st.integers(-400, 400), min_size=8, max_size=64),
    st.sampled_from((3, 4, 5)),
    st.integers(0, 8),
)
def test_encode_group_keeps_the_leftmost_outliers(deltas, bits, lanes):
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    exact = numerics.encode_group(deltas, bits, lanes, spill=True)
    sent = numerics.encode_group(deltas, bits, lanes, spill=False)
    assert exact == [max(-256, min(255, d)) for d in deltas]
    wide = [i for i, d in enumerate(exact) if not low <= d <= high]
    for i, (want, got) in enumerate(zip(exact, sent, strict=True)):
        assert got == (max(low, min(high, want)) if i in wide[lanes:] else want)


def test_exponential_table_falls_from_127_to_below_half_a_code():
    table = numerics.exponential_table()
    assert len(table) == numerics.SOFTMAX_ENTRIES
    assert table[0] == 127
    assert table[-1] in (0, 1)
    assert table == sorted(table, reverse=True)


@given(st.lists(st.integers(-(2**20), 2**20), min_size=1, max_size=40), st.integers(0, 2**14))
def test_softmax_maximum_is_127_and_shift_invariant(scores, multiplier):
    table = numerics.exponential_table()
    codes, reciprocal = numerics.softmax_row(scores, multiplier, 18, table)
    assert codes[scores.index(max(scores))] == 127
    assert reciprocal == 2**30 // sum(codes)
    assert (codes, reciprocal) == numerics.softmax_row(
        [s + 12345 for s in scores], multiplier, 18, table
    )
