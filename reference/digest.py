"""Hash of a run: what two backends compare when they claim the same bits."""

from __future__ import annotations

import hashlib

import numpy as np


class RunDigest:
    """SHA-256 per image over the output accumulators of every executed step, in order.

    The digest of an image does not depend on the batch it was computed in.
    """

    def __init__(self, batch: int) -> None:
        self._images = [hashlib.sha256() for _ in range(batch)]

    def update(self, accumulators: np.ndarray) -> None:
        """Add one step's int32 (batch, height, width, channels)."""
        if accumulators.dtype != np.int32 or len(accumulators) != len(self._images):
            raise ValueError(
                f"accumulators are {accumulators.dtype} of {len(accumulators)} images; this digest "
                f"takes int32 of {len(self._images)}."
            )
        for digest, image in zip(self._images, accumulators, strict=True):
            digest.update(np.ascontiguousarray(image, dtype="<i4").tobytes())

    def images(self) -> list[str]:
        """Hexadecimal digests of the images so far."""
        return [digest.hexdigest() for digest in self._images]

    def run(self) -> str:
        """Hexadecimal digest over the concatenated image digests (`output_sha256`)."""
        return hashlib.sha256(b"".join(digest.digest() for digest in self._images)).hexdigest()
