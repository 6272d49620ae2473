"""The torch ports reproduce the scalar definitions, bit for bit."""

from collections import defaultdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from signmask.hw.spec import numerics, vectors
from signmask.reference import arithmetic


def column(values):
    return torch.tensor(values, dtype=torch.int64)


def batches(function, static):
    """Vectors of a function grouped by the arguments that a port takes as Python values."""
    groups = defaultdict(list)
    for arguments, expected in vectors.vectors(function):
        groups[tuple(arguments[i] for i in static)].append((arguments, expected))
    for key, members in groups.items():
        arguments = list(zip(*(a for a, _ in members), strict=True))
        yield key, arguments, [e for _, e in members]


def check(function, static=()):
    """Call the port with tensors for all arguments but the static ones."""
    port = getattr(arithmetic, function)
    for _, arguments, expected in batches(function, static):
        called = [a[0] if i in static else column(a) for i, a in enumerate(arguments)]
        results = port(*called)
        results = results if isinstance(results, tuple) else (results,)
        wanted = [e if isinstance(e, tuple) else (e,) for e in expected]
        assert [tuple(r) for r in torch.stack(results, -1).tolist()] == wanted


# Positions of arguments that the port takes as Python integers.
PORTS = {
    "saturate": (1,),
    "shift_round": (1,),
    "requantise": (2,),
    "divide_round": (),
    "reciprocal_sqrt": (),
    "group_moments": (2, 3),
    "move_by_trend": (),
    "channel_constants": (6,),
    "pre_activation": (3,),
    "activation_code": (3, 4, 5),
    "masked_delta": (2, 4),
    "product_code": (2, 3, 4),
    "attention_code": (2, 3, 4),
}
BELOW = {"segment_index", "encode_group", "softmax_row", "normalise_token"}
AS_THEY_ARE = {"exponential_table", "digit_passes", "delta_passes"}  # of numerics
ELSEWHERE = {"spread_code"}  # tests/runtime/test_input_codes.py


def test_every_function_is_compared():
    assert set(PORTS) | BELOW | AS_THEY_ARE | ELSEWHERE == set(vectors.FUNCTIONS)


@pytest.mark.parametrize("function", PORTS)
def test_port_reproduces_vectors(function):
    check(function, PORTS[function])


@pytest.mark.parametrize("function", ["shift_round", "requantise"])
def test_shifts_given_as_tensors(function):
    check(function)


def test_segment_index():
    for (breaks,), arguments, expected in batches("segment_index", (1,)):
        assert arithmetic.segment_index(column(arguments[0]), column(breaks)).tolist() == expected


def test_normalise_token():
    for (values, *rest), expected in vectors.vectors("normalise_token"):
        both = column([values, values[::-1]])
        assert arithmetic.normalise_token(both, *rest).tolist() == [expected, expected[::-1]]


def test_encode_group():
    for arguments, expected in vectors.vectors("encode_group"):
        deltas, bits, lanes, spill = arguments
        sent, clipped = arithmetic.encode_group(column([deltas]), bits, lanes, spill)
        assert sent[0].tolist() == expected
        saturated = arithmetic.saturate(column(deltas), numerics.DELTA_BITS)
        assert torch.equal(clipped[0], sent[0] != saturated)


def test_softmax_row():
    for (scores, multiplier, shift, table), (codes, reciprocal) in vectors.vectors("softmax_row"):
        got = arithmetic.softmax_row(column([scores]), multiplier, shift, column(table))
        assert got[0].tolist() == [codes]
        assert got[1].tolist() == [[reciprocal]]


@given(st.integers(0, 2**63 - 1))
def test_bit_length(value):
    assert int(arithmetic.bit_length(column([value]))) == value.bit_length()


@given(st.integers(1, 2**63 - 1))
def test_reciprocal_sqrt(value):
    r, h = arithmetic.reciprocal_sqrt(column([value]))
    assert (int(r), int(h)) == numerics.reciprocal_sqrt(value)


@given(st.integers(1, 2**24 - 1), st.integers(-1, 1))
def test_reciprocal_sqrt_near_squares(root, offset):
    value = max(1, root * root + offset)
    r, h = arithmetic.reciprocal_sqrt(column([value]))
    assert (int(r), int(h)) == numerics.reciprocal_sqrt(value)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(1, 63))
def test_right_shifts_cannot_overflow(value, shift):
    want = numerics.shift_round(value, shift)
    assert int(arithmetic.shift_round(column([value]), shift)) == want
    assert int(arithmetic.shift_round(column([value]), column([shift]))) == want


@given(
    st.lists(st.lists(st.integers(-300, 300), min_size=16, max_size=16), min_size=1, max_size=5),
    st.sampled_from((3, 4, 5)),
    st.integers(0, 4),
    st.booleans(),
)
def test_encode_groups_side_by_side(rows, bits, lanes, spill):
    sent, _ = arithmetic.encode_group(column(rows), bits, lanes, spill)
    assert sent.tolist() == [numerics.encode_group(row, bits, lanes, spill) for row in rows]
