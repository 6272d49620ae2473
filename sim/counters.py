"""Performance counters of one step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from signmask.hw.spec.isa import Traffic

KEYS = ("zero", "inlier", "outlier", "clipped", "elements", "segment_changes")


class Counters:
    """Bytes by kind, delta statistics by source number, saturations by stream number."""

    def __init__(self, sources: Sequence[str], streams: Sequence[str], inlier_bits: int) -> None:
        self.sources, self.streams = tuple(sources), tuple(streams)
        self._low, self._high = -(1 << (inlier_bits - 1)), (1 << (inlier_bits - 1)) - 1
        self.reset()

    def reset(self) -> None:
        """Start a step."""
        self.traffic = {kind.name.lower(): 0 for kind in Traffic}
        self.traffic |= {"instructions": 0, "near_data": 0}
        self._deltas: dict[int, dict[str, int]] = {}
        self._saturated = dict.fromkeys(self.streams, 0)

    def move(self, kind: int, size: int) -> None:
        """Count bytes on the bus."""
        self.traffic[Traffic(kind).name.lower()] += size

    def _of(self, source: int) -> dict[str, int]:
        return self._deltas.setdefault(source, dict.fromkeys(KEYS, 0))

    def deltas(self, source: int, sent: np.ndarray, clipped: np.ndarray, lanes: int) -> None:
        """Count encoded deltas (planes, words, n), `lanes` of the last plane being valid."""
        zero, inlier, outlier = self._classes(sent)
        clips, elements = int(np.count_nonzero(clipped)), sent.size
        if lanes < sent.shape[-1]:
            padding = sent[-1, :, lanes:]
            z, i, o = self._classes(padding)
            zero, inlier, outlier = zero - z, inlier - i, outlier - o
            clips -= int(np.count_nonzero(clipped[-1, :, lanes:]))
            elements -= padding.size
        counter = self._of(source)
        for key, value in zip(KEYS, (zero, inlier, outlier, clips, elements), strict=False):
            counter[key] += value

    def _classes(self, sent: np.ndarray) -> tuple[int, int, int]:
        nonzero = int(np.count_nonzero(sent))
        outlier = int(np.count_nonzero((sent < self._low) | (sent > self._high)))
        return sent.size - nonzero, nonzero - outlier, outlier

    def segment_changes(self, source: int, changes: int) -> None:
        """Count segments that differ from those of the step before."""
        self._of(source)["segment_changes"] += changes

    def saturations(self, stream: int, count: int) -> None:
        """Count saturated elements of a stream."""
        self._saturated[self.streams[stream]] += count

    def result(self) -> dict[str, dict[str, int]]:
        """Counters by name, as a StepResult has them."""
        named = {self.sources[number]: dict(c) for number, c in sorted(self._deltas.items())}
        return {**named, "streams": dict(self._saturated)}
