"""Samples to pixels, and pixels to picture files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from signmask.runtime.errors import MissingExtra


def unfold(samples: np.ndarray, factor: int) -> np.ndarray:
    """(N, C * factor**2, H, W) to (N, C, H * factor, W * factor), clipped to [-1, 1]."""
    n, c, h, w = samples.shape
    blocks = samples.reshape(n, c // factor**2, factor, factor, h, w)
    pixels = blocks.transpose(0, 1, 4, 2, 5, 3).reshape(n, -1, h * factor, w * factor)
    return np.clip(pixels, -1.0, 1.0)


def grid(pixels: np.ndarray, columns: int | None = None, zoom: int = 2) -> np.ndarray:
    """uint8 picture (height, width) or (height, width, 3) of images (N, C, H, W) in [-1, 1].

    One channel is grey, three are colours; any other number is shown as grey tiles side by side.
    """
    n, c, h, w = pixels.shape
    if c not in (1, 3):
        pixels = pixels.transpose(0, 2, 1, 3).reshape(n, 1, h, c * w)
        c, w = 1, c * w
    columns = columns or max(1, int(np.ceil(np.sqrt(n))))
    rows = -(-n // columns)
    values = np.rint((np.clip(pixels, -1, 1) + 1) * 127.5).astype(np.uint8)
    values = values.repeat(zoom, axis=2).repeat(zoom, axis=3)
    h, w = h * zoom, w * zoom
    picture = np.full((rows * (h + 2) + 2, columns * (w + 2) + 2, c), 255, np.uint8)
    for i, image in enumerate(values):
        top, left = 2 + i // columns * (h + 2), 2 + i % columns * (w + 2)
        picture[top : top + h, left : left + w] = image.transpose(1, 2, 0)
    return picture[:, :, 0] if c == 1 else picture


def png(picture: np.ndarray) -> bytes:
    """PNG file of a uint8 picture (height, width[, 3]); raises MissingExtra without Pillow."""
    stream = io.BytesIO()
    image_module().fromarray(picture).save(stream, format="PNG")
    return stream.getvalue()


def image_module() -> Any:
    """Pillow's `Image` module; raises MissingExtra where it is not installed."""
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtra("pillow", "report", "Writing pictures") from None
    return Image
