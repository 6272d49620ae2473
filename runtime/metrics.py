"""Image quality: PSNR and SSIM between pairs of images, Frechet distance between sets of them.

Pixels are real numbers in [-1, 1], so that the peak (the width of the range) is 2. All results are
float64. PSNR of equal images is infinite; JSON has no infinity, writers put null there.
"""

from __future__ import annotations

import numpy as np

PEAK = 2.0
SSIM_SIGMA = 1.5
SSIM_RADIUS = 5  # 11 x 11 window


def _pair(images: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64; raises ValueError where they cannot be compared image by image."""
    a, b = np.asarray(images, np.float64), np.asarray(references, np.float64)
    if a.shape != b.shape or a.ndim != 4 or a.size == 0:
        raise ValueError(
            f"images of shapes {a.shape} and {b.shape} cannot be compared; give two arrays of the "
            "same shape (images, channels, height, width), not empty."
        )
    return a, b


def psnr(images: np.ndarray, references: np.ndarray, peak: float = PEAK) -> np.ndarray:
    """Peak signal-to-noise ratio in dB of each image, (N,) float64; infinite where equal.

    Both arguments are (N, channels, height, width) on the same scale, of width `peak`. Raises
    ValueError where the shapes differ.
    """
    a, b = _pair(images, references)
    error = ((a - b) ** 2).mean(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(peak**2 / error)


def _window_mean(images: np.ndarray) -> np.ndarray:
    """Gaussian-weighted means over every window inside the image: height and width shrink by 10."""
    offsets = np.arange(-SSIM_RADIUS, SSIM_RADIUS + 1)
    weights = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (2, 3):
        windows = np.lib.stride_tricks.sliding_window_view(images, len(weights), axis=axis)
        images = windows @ weights
    return images


def ssim(images: np.ndarray, references: np.ndarray, peak: float = PEAK) -> np.ndarray:
    """Structural similarity of each image, (N,) float64, at most 1 and 1 for equal images.

    The definition of Wang, Bovik, Sheikh and Simoncelli (2004): 11x11 Gaussian window of sigma 1.5,
    K1 = 0.01, K2 = 0.03, population variances, mean over the windows that lie inside the image and
    over channels. Raises ValueError where the shapes differ or an image is smaller than a window.
    """
    a, b = _pair(images, references)
    if min(a.shape[2:]) < 2 * SSIM_RADIUS + 1:
        raise ValueError(
            f"images of {a.shape[2]}x{a.shape[3]} pixels are too small for SSIM; give at least "
            f"{2 * SSIM_RADIUS + 1} pixels a side."
        )
    mean_a, mean_b = _window_mean(a), _window_mean(b)
    variance_a = _window_mean(a * a) - mean_a**2
    variance_b = _window_mean(b * b) - mean_b**2
    covariance = _window_mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return (luminance * structure).mean(axis=(1, 2, 3))


def frechet_distance(
    mean_a: np.ndarray, covariance_a: np.ndarray, mean_b: np.ndarray, covariance_b: np.ndarray
) -> float:
    """Squared Frechet (2-Wasserstein) distance between two Gaussians: the "FID" formula.

    Means are (d,), covariances (d, d), symmetric and positive semidefinite. The trace of the root
    of the product is taken from the eigenvalues of the symmetric root(A) B root(A), which stays
    real for the singular covariances of few samples.
    """
    values, vectors = np.linalg.eigh(covariance_a)
    root_a = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    product = np.linalg.eigvalsh(root_a @ covariance_b @ root_a)
    cross = np.sqrt(np.clip(product, 0, None)).sum()
    spread = np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross
    return float(((mean_a - mean_b) ** 2).sum() + max(spread, 0.0))


def frechet(images: np.ndarray, references: np.ndarray | None = None) -> float:
    """Frechet distance between two sets of images in the feature space of the bundled classifier.

    Images are (N, 1, 32, 32) in [-1, 1], N at least 2; without `references`, the distance is to the
    10,000 real test images of Fashion-MNIST, whose statistics are bundled. It falls with N: compare
    only distances of equally many images. Needs the `torch` extra; raises ValueError for another
    shape or fewer images.
    """
    from signmask.reference.models import classifier

    def statistics(batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if len(batch) < 2:
            raise ValueError(
                f"{len(batch)} image(s) have no covariance for a Frechet distance; give at least 2."
            )
        found = classifier.features(batch)
        return found.mean(0), np.cov(found, rowvar=False)

    real = classifier.real_statistics() if references is None else statistics(references)
    return frechet_distance(*statistics(images), *real)


def recognisable(images: np.ndarray, confidence: float = 0.9) -> float:
    """Share of images (N, 1, 32, 32) to which the bundled classifier gives one class more than
    `confidence`: a proxy of recognisability. Needs the `torch` extra."""
    from signmask.reference.models import classifier

    return float((classifier.probabilities(images).max(axis=1) > confidence).mean())
