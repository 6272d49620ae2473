import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signmask.compiler.errors import CompileError
from signmask.compiler.passes.attention import fixed_point
from signmask.compiler.passes.weights import quantise_weight


@given(st.floats(1e-9, 1e3))
def test_fixed_point_is_within_its_bound(factor):
    multiplier, shift = fixed_point("a", factor)
    assert multiplier < 1 << 15
    assert abs(multiplier * 2.0**-shift / factor - 1) <= 2.0**-14


def test_integers_and_scales_agree():
    weight = np.random.default_rng(0).normal(size=(5, 7, 3, 3)).astype(np.float32)
    weight[2] *= 1e-3
    weight[3] = 0
    q = quantise_weight("w", weight, 0.02, 0.004)
    assert q.weight.shape == (5, 3, 3, 7)
    assert np.allclose(q.multiplier * 2.0**-q.shift, q.scale * 0.02 / 0.004, rtol=1e-14, atol=0)
    assert q.multiplier.max() < 1 << 15
    restored = (q.weight * q.scale[:, None, None, None]).transpose(0, 3, 1, 2)
    for channel in range(5):
        assert np.abs(restored[channel] - weight[channel]).max() <= 0.41 * q.scale[channel] * 127
        rms = np.sqrt(((restored[channel] - weight[channel]) ** 2).mean())
        assert rms <= 0.35 * q.scale[channel]
    assert not q.weight[3].any()


def test_accumulator_beyond_int32_is_refused():
    with pytest.raises(CompileError, match="beyond int32"):
        quantise_weight("w", np.ones((1, 140000, 1, 1), np.float32), 1.0, None)
