"""Quality of a run's images against a baseline, and its JSON form."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np

from signmask.runtime.metrics import SSIM_RADIUS, psnr, ssim


@dataclass(frozen=True)
class Quality:
    """Distance from a baseline: PSNR in dB over the images that differ (None where none does), mean
    SSIM (None for images smaller than its window), and the number of images that are identical."""

    psnr_db_mean: float | None
    psnr_db_median: float | None
    psnr_db_minimum: float | None
    ssim: float | None
    identical: int
    images: int

    def to_json(self) -> dict[str, float | int | None]:
        """All fields, rounded to 4 digits after the point."""
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def measure(pixels: np.ndarray, reference: np.ndarray) -> Quality:
    """Compare pixel images (N, C, H, W) in [-1, 1], image by image."""
    values = psnr(pixels, reference)
    finite = values[np.isfinite(values)]
    window = 2 * SSIM_RADIUS + 1
    return Quality(
        psnr_db_mean=float(finite.mean()) if finite.size else None,
        psnr_db_median=float(np.median(finite)) if finite.size else None,
        psnr_db_minimum=float(finite.min()) if finite.size else None,
        ssim=float(ssim(pixels, reference).mean()) if min(pixels.shape[2:]) >= window else None,
        identical=int(values.size - finite.size),
        images=int(values.size),
    )


def error_over_steps(trajectory: np.ndarray, reference: np.ndarray) -> list[float]:
    """Root mean square difference of the samples after each step, (steps, images, ...) both."""
    difference = trajectory.astype(np.float64) - reference
    return [math.sqrt(float((step**2).mean())) for step in difference]
