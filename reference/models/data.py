"""Fashion-MNIST from Debian's `dataset-fashion-mnist` package (MIT licence).

Images are padded from 28x28 to 32x32 and folded 2x2 into channels, so that the
U-Net works on 4x16x16 (`fold`/`unfold`).
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import torch

FOLDER = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "T-shirt", "trouser", "pullover", "dress", "coat",
    "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


class DatasetMissing(RuntimeError):
    """The Debian package with the images is not installed."""


def _read_idx(path: Path) -> np.ndarray:
    """Read one gzip-compressed idx file of unsigned bytes into an array of its stated shape."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise DatasetMissing(
            f"{path} is missing; install it with 'apt-get install dataset-fashion-mnist'."
        ) from None
    dims = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims)]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(shape)


def load(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 1, 32, 32) float32 in [-1, 1] and labels (N,) int64; split is 'train' or 't10k'.

    Raises DatasetMissing where the Debian package is not installed.
    """
    images = _read_idx(FOLDER / f"{split}-images-idx3-ubyte.gz")
    labels = _read_idx(FOLDER / f"{split}-labels-idx1-ubyte.gz")
    scaled = torch.from_numpy(images.astype(np.float32) / 127.5 - 1.0)[:, None]
    padded = torch.nn.functional.pad(scaled, (2, 2, 2, 2), value=-1.0)
    return padded, torch.from_numpy(labels.astype(np.int64))


def fold(images: torch.Tensor) -> torch.Tensor:
    """(N, 1, 32, 32) pixels to the model's (N, 4, 16, 16)."""
    return torch.nn.functional.pixel_unshuffle(images, 2)


def unfold(folded: torch.Tensor) -> torch.Tensor:
    """The model's (N, 4, 16, 16) to (N, 1, 32, 32) pixels."""
    return torch.nn.functional.pixel_shuffle(folded, 2)
