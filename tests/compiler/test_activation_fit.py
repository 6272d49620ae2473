import numpy as np
import pytest
import torch

from signmask.compiler.activation_fit import (
    FUNCTIONS,
    TORCH_FUNCTIONS,
    activate,
    activation_value,
    fit,
)

Z = np.linspace(-8, 8, 2048)
WEIGHT = np.exp(-Z * Z / 2)


def error(kind, bits):
    segments = fit(kind, bits, Z, WEIGHT)
    difference = segments(Z) - activation_value(kind, Z)
    return float(np.sqrt((WEIGHT * difference**2).sum() / WEIGHT.sum()))


def test_more_segments_fit_silu_better():
    errors = [error("silu", bits) for bits in (1, 2, 3, 4)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 0.12
    assert errors[2] < 0.008


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_relu_is_exact(bits):
    segments = fit("relu", bits, Z, WEIGHT)
    assert len(segments.slopes) == 2**bits
    assert (segments(Z) == np.maximum(Z, 0)).all()


def test_two_segments_are_optimal():
    best = error("silu", 1)
    for edge in Z[600:1400:10]:
        total = 0.0
        for side in (edge > Z, edge <= Z):
            w, z, f = WEIGHT[side], Z[side], activation_value("silu", Z[side])
            line = np.polyfit(z, f, 1, w=np.sqrt(w))
            total += float((w * (np.polyval(line, z) - f) ** 2).sum())
        assert best <= np.sqrt(total / WEIGHT.sum()) * 1.001


def test_breaks_ascend_and_a_narrow_histogram_still_gives_all_segments():
    narrow = np.where(np.abs(Z) < 0.02, 1.0, 0.0)
    segments = fit("silu", 3, Z, narrow)
    assert len(segments.slopes) == 8
    assert (np.diff(segments.breaks) >= 0).all()
    assert np.isfinite(segments.slopes).all()
    assert np.isfinite(segments.intercepts).all()


PARAMETRISED = ("leaky_relu:0.2", "elu:0.7", "softplus:3.0:5.0", "hardtanh:-0.3:0.2")


@pytest.mark.parametrize("kind", [*FUNCTIONS, *PARAMETRISED])
def test_a_function_of_arrays_is_that_of_tensors(kind):
    found = activate(kind, torch.from_numpy(Z))
    assert np.allclose(activation_value(kind, Z), found.numpy(), rtol=1e-12, atol=1e-14)
    assert set(FUNCTIONS) == set(TORCH_FUNCTIONS)


def test_parameters_count():
    assert activation_value("leaky_relu:0.2", np.array([-1.0]))[0] == -0.2
    assert activation_value("hardtanh:-0.3:0.2", np.array([-1.0, 1.0])).tolist() == [-0.3, 0.2]


@pytest.mark.parametrize("kind", [*FUNCTIONS, *PARAMETRISED])
def test_eight_segments_follow_every_function(kind):
    assert error(kind, 3) < 0.01
