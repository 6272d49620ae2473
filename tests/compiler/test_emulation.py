"""The compiler's torch arithmetic reproduces the scalar definitions, bit for bit."""

from collections import defaultdict

import pytest
import torch

from signmask.compiler import emulation
from signmask.hw.spec import vectors
from signmask.hw.spec.network import TokenNorm


def column(values):
    return torch.tensor(values, dtype=torch.int64)


@pytest.mark.parametrize("function", ["saturate", "shift_round"])
def test_static_second_argument(function):
    groups = defaultdict(list)
    for (value, static), expected in vectors.vectors(function):
        groups[static].append((value, expected))
    for static, members in groups.items():
        values, expected = zip(*members, strict=True)
        assert getattr(emulation, function)(column(values), static).tolist() == list(expected)


def test_shifts_given_as_tensors():
    arguments, expected = zip(*vectors.vectors("shift_round"), strict=True)
    values, shifts = (column(part) for part in zip(*arguments, strict=True))
    assert emulation.shift_round_by(values, shifts).tolist() == list(expected)


def test_reciprocal_sqrt():
    arguments, expected = zip(*vectors.vectors("reciprocal_sqrt"), strict=True)
    r, h = emulation.reciprocal_sqrt(column([value for (value,) in arguments]))
    assert list(zip(r.tolist(), h.tolist(), strict=True)) == list(expected)


def test_normalise_token():
    for (values, count, epsilon, stat_shift, shift, centred), expected in vectors.vectors(
        "normalise_token"
    ):
        norm = TokenNorm(count, epsilon, stat_shift, shift, centred)
        both = column([values, values[::-1]]).mT[None]
        found = emulation.DenseEmulator._normalise_tokens(both, norm)[0]
        assert found.mT.tolist() == [expected, expected[::-1]]
