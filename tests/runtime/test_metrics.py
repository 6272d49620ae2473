"""Metrics against independent implementations (scipy) and against values known in closed form."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import linalg, ndimage

from signmask.runtime import metrics


def noisy_pair(seed: int, sigma: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Smooth images (3, 2, 32, 40) in [-1, 1], and the same with Gaussian noise of `sigma`."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=(3, 2, 32, 40)), (0, 0, 3, 3)) * 5
    clean = np.clip(smooth, -1, 1)
    return clean, np.clip(clean + sigma * rng.normal(size=clean.shape), -1, 1)


def test_psnr_of_a_constant_error_is_known() -> None:
    clean = np.zeros((2, 1, 4, 4))
    wrong = clean + np.array([0.02, 2.0]).reshape(2, 1, 1, 1)
    assert metrics.psnr(wrong, clean) == pytest.approx([40.0, 0.0], abs=1e-12)


def test_psnr_is_per_image_and_infinite_where_equal() -> None:
    clean, wrong = noisy_pair(0)
    wrong[1] = clean[1]
    found = metrics.psnr(wrong, clean)
    assert found.shape == (3,)
    assert np.isinf(found).tolist() == [False, True, False]


def ssim_by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    """One channel, from scipy's Gaussian filter, cropped to whole windows."""

    def mean(x: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(x, 1.5, truncate=5 / 1.5)[5:-5, 5:-5]

    c1, c2 = 0.02**2, 0.06**2
    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    ratio = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return float(ratio.mean())


@pytest.mark.parametrize("sigma", [0.01, 0.2, 1.0])
def test_ssim_equals_scipys_filter(sigma: float) -> None:
    clean, wrong = noisy_pair(1, sigma)
    expected = [
        np.mean([ssim_by_scipy(x, y) for x, y in zip(a, b, strict=True)])
        for a, b in zip(wrong, clean, strict=True)
    ]
    assert metrics.ssim(wrong, clean) == pytest.approx(expected, abs=1e-12)


def test_ssim_of_equal_images_is_one_and_falls_with_noise() -> None:
    clean, little = noisy_pair(2, 0.05)
    much = noisy_pair(2, 0.5)[1]
    assert metrics.ssim(clean, clean) == pytest.approx(np.ones(3), abs=1e-12)
    assert (metrics.ssim(much, clean) < metrics.ssim(little, clean)).all()


@pytest.mark.parametrize(
    ("shape_a", "shape_b"), [((2, 1, 16, 16), (2, 1, 16, 15)), ((16, 16), (16, 16))]
)
def test_images_that_do_not_pair_are_refused(shape_a: tuple, shape_b: tuple) -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        metrics.psnr(np.zeros(shape_a), np.zeros(shape_b))


def test_ssim_refuses_images_smaller_than_its_window() -> None:
    with pytest.raises(ValueError, match="8x32 pixels are too small"):
        metrics.ssim(np.zeros((1, 1, 8, 32)), np.zeros((1, 1, 8, 32)))


def gaussian(seed: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """A mean (6,) and a covariance (6, 6) of the given rank."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(6, rank))
    return rng.normal(size=6), factor @ factor.T


def test_frechet_distance_equals_the_formula_with_scipys_matrix_root() -> None:
    (mean_a, cov_a), (mean_b, cov_b) = gaussian(0, 6), gaussian(1, 6)
    root = linalg.sqrtm(cov_a @ cov_b).real
    expected = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert metrics.frechet_distance(mean_a, cov_a, mean_b, cov_b) == pytest.approx(expected, 1e-9)


def test_frechet_distance_of_independent_dimensions_is_known() -> None:
    """Diagonal covariances: squared differences of means and of standard deviations."""
    mean = np.array([1.0, 0.0, 0.0])
    wide, narrow = np.diag([4.0, 9.0, 1.0]), np.diag([1.0, 1.0, 1.0])
    assert metrics.frechet_distance(mean, wide, 0 * mean, narrow) == pytest.approx(1 + 1 + 4 + 0)


@pytest.mark.parametrize("rank", [2, 6])
def test_frechet_distance_to_itself_is_zero_also_where_singular(rank: int) -> None:
    mean, cov = gaussian(3, rank)
    assert metrics.frechet_distance(mean, cov, mean, cov) == pytest.approx(0, abs=1e-6)


def test_frechet_needs_two_images() -> None:
    with pytest.raises(ValueError, match="give at least 2"):
        metrics.frechet(np.zeros((1, 1, 32, 32)))


def test_frechet_sees_noise_and_missing_variety() -> None:
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (40, 1, 32, 32))
    again = np.random.default_rng(1).uniform(-1, 1, (40, 1, 32, 32))
    copies = images[:1].repeat(40, axis=0)
    alike = metrics.frechet(again, images)
    assert 0 <= alike < metrics.frechet(copies, images) < metrics.frechet(images)
