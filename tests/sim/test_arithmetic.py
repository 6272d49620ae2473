"""The numpy ports reproduce the scalar definitions, bit for bit."""

from collections import defaultdict

import numpy as np
import pytest

from signmask.hw.spec import numerics, vectors
from signmask.sim import arithmetic
from signmask.sim.outlier_selector import OutlierSelector

# Positions of arguments that the port takes as Python integers.
PORTS = {
    "saturate": (1,),
    "shift_round": (1,),
    "requantise": (2,),
    "divide_round": (1,),
    "reciprocal_sqrt": (),
    "group_moments": (2, 3),
    "move_by_trend": (),
    "channel_constants": (5, 6),
    "pre_activation": (3,),
    "activation_code": (3, 4, 5),
    "masked_delta": (2, 4),
    "product_code": (2, 3, 4),
    "attention_code": (2, 3, 4),
}
BELOW = {"segment_index", "encode_group", "softmax_row", "normalise_token"}
AS_THEY_ARE = {"exponential_table", "digit_passes", "delta_passes"}  # of numerics
ELSEWHERE = {"spread_code"}  # tests/runtime/test_input_codes.py


def batches(function, static):
    """Vectors of a function grouped by the arguments that a port takes as Python values."""
    groups = defaultdict(list)
    for arguments, expected in vectors.vectors(function):
        groups[tuple(arguments[i] for i in static)].append((arguments, expected))
    for members in groups.values():
        yield list(zip(*(a for a, _ in members), strict=True)), [e for _, e in members]


def test_every_function_is_compared():
    assert set(PORTS) | BELOW | AS_THEY_ARE | ELSEWHERE == set(vectors.FUNCTIONS)


@pytest.mark.parametrize("function", PORTS)
def test_port_reproduces_vectors(function):
    port = getattr(arithmetic, function)
    for arguments, expected in batches(function, PORTS[function]):
        called = [
            a[0] if i in PORTS[function] else np.array(a, np.int64) for i, a in enumerate(arguments)
        ]
        results = port(*called)
        results = results if isinstance(results, tuple) else (results,)
        wanted = [e if isinstance(e, tuple) else (e,) for e in expected]
        assert [tuple(r) for r in np.stack(results, -1).tolist()] == wanted


def test_segment_index():
    for arguments, expected in batches("segment_index", (1,)):
        z = np.clip(arguments[0], -(1 << 23), (1 << 23) - 1).astype(np.int32)
        if z.tolist() != list(arguments[0]):  # z of the machine has 24 bits
            expected = [numerics.segment_index(int(v), arguments[1][0]) for v in z]
        assert arithmetic.segment_index(z, np.array(arguments[1][0])).tolist() == expected


def test_breaks_beyond_z_are_never_reached():
    z = np.array([-(1 << 23), 0, (1 << 23) - 1], np.int32)
    breaks = np.array([-(1 << 40), (1 << 23) - 1, 1 << 40])
    assert arithmetic.segment_index(z, breaks).tolist() == [1, 1, 2]


def test_encode_group():
    for (deltas, bits, lanes, spill), expected in vectors.vectors("encode_group"):
        selector = OutlierSelector(bits, lanes)
        sent, clipped = selector.encode(np.array([deltas]), spill)
        assert sent[0].tolist() == expected
        saturated = arithmetic.saturate(np.array(deltas), numerics.DELTA_BITS)
        assert clipped[0].tolist() == (sent[0] != saturated).tolist()


def test_softmax_rows():
    for (scores, multiplier, shift, table), expected in vectors.vectors("softmax_row"):
        assert list(table) == numerics.exponential_table()
        codes, reciprocal = arithmetic.softmax_rows(np.array([scores]), multiplier, shift)
        assert (codes[0].tolist(), int(reciprocal[0])) == tuple(expected)


def test_normalise_token():
    for (values, *rest), expected in vectors.vectors("normalise_token"):
        both = np.array([values, values[::-1]])
        assert arithmetic.normalise_token(both, *rest).tolist() == [expected, expected[::-1]]


def test_integer_root_at_squares():
    roots = np.array([1, 2, 3, 1000, (1 << 23) - 1, 1 << 23, (1 << 24) - 1])
    squares = roots * roots
    assert arithmetic.integer_root(squares).tolist() == roots.tolist()
    assert arithmetic.integer_root(squares - 1).tolist() == (roots - 1).tolist()


def test_large_left_shift_of_a_gain_saturates():
    one = np.array([1, -1, 0])
    a, _ = arithmetic.channel_constants(
        np.array(0), np.array(1 << 22), np.array(-70), one, np.array(0), 0, 0
    )
    assert a.tolist() == [(1 << 23) - 1, -(1 << 23), 0]
