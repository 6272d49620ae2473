"""What an instruction of the near-data engine fetches, computes and writes, frame by frame."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from signmask.hw.spec import engine_timing as timing
from signmask.hw.spec.config import HardwareConfig


class FrameTable(NamedTuple):
    """Frames of a tensor, arrays of one entry each: words, first word, part, and whether the frame
    is the first of its part or plane, or the last of its plane."""

    words: np.ndarray
    first: np.ndarray
    part: np.ndarray
    part_first: np.ndarray
    plane_first: np.ndarray
    plane_last: np.ndarray


@lru_cache(maxsize=256)
def frame_table(planes: tuple[int, ...], plane_words: int, most: int) -> FrameTable:
    """Frames of parts of so many planes each."""
    per_plane = -(-plane_words // most)
    words = np.full((sum(planes), per_plane), most)
    words[:, -1] = plane_words - most * (per_plane - 1)
    index = np.arange(words.size)
    part = np.repeat(np.arange(len(planes)), np.array(planes) * per_plane)
    return FrameTable(
        words.ravel(), np.cumsum(words) - words.ravel(), part, np.diff(part, prepend=-1) > 0,
        index % per_plane == 0, index % per_plane == per_plane - 1,
    )  # fmt: skip


class Work:
    """Collects the work of one instruction; `cycles` charges it.

    `table`, `area` and `outliers` are called in the order in which the engine reads, `result` in
    the order in which it writes.
    """

    def __init__(self, config: HardwareConfig, descriptor: int, size: int) -> None:
        self.config = config
        self._descriptor = self._table(descriptor, size, timing.DESCRIPTOR_UNIT)
        self._tables: list[timing.Table] = []
        self._areas: list[np.ndarray] = []
        self._scanned = 0  # areas that are scanned
        self._lists: list[np.ndarray] = []
        self._results: list[np.ndarray] = []
        self.runs: list[int] = []  # cycles of the normalisation unit

    def begin(self, planes: Sequence[int], images: int, positions: int) -> None:
        """The shape of the words."""
        most = timing.frame_words(self.config)
        self.frames = frame_table(tuple(planes), images * positions, most)
        self.positions = positions

    def _table(self, address: int, size: int, unit: int) -> timing.Table:
        return timing.Table(address % self.config.near_data_bytes, size, unit)

    def table(self, address: int, size: int, entry_bytes: int = 8) -> None:
        """A table of `size` bytes in words of n entries."""
        self._tables.append(self._table(address, size, entry_bytes * self.config.group))

    def area(self, addresses: Sequence[int], sizes: Sequence[int], scanned: bool = False) -> None:
        """An area of sizes[i] bytes per word in part i, or one for all parts."""
        frames = self.frames
        per_part = len(sizes) > 1
        starts = frames.part_first if per_part else np.arange(frames.words.size) == 0
        each = np.array(sizes)[frames.part] if per_part else sizes[0]
        self._areas.append(
            timing.read_beats(self.config, frames.words * each, starts, self._lows(addresses))
        )
        self._scanned += scanned

    def outliers(
        self, counts: np.ndarray, addresses: Sequence[int], chunks: Sequence[int],
        wide_bytes: Sequence[int],
    ) -> None:  # fmt: skip
        """Lists of `counts` outliers per word, in chunks of chunks[i] words in part i."""
        frames, n = self.frames, self.config.group
        chunk, wide = np.array(chunks)[frames.part], np.array(wide_bytes)[frames.part]
        part_start = frames.first[frames.part_first][frames.part]
        within = frames.first - part_start
        starts = frames.part_first | (chunk > 0) & (within % np.maximum(chunk, 1) == 0)
        places = np.array(addresses)[frames.part] + within * n * wide
        sizes = np.add.reduceat(counts, frames.first) * wide
        lows = places[starts] % self.config.near_data_bytes
        self._lists.append(timing.read_beats(self.config, sizes, starts, lows))

    def plane_outliers(
        self, counts: np.ndarray, address: int, plane_bytes: int, wide_bytes: int
    ) -> None:
        """Lists of `counts` outliers per word, one list per plane, plane_bytes apart."""
        frames = self.frames
        lows = address + np.arange(int(frames.plane_first.sum())) * plane_bytes
        self._lists.append(
            timing.read_beats(
                self.config, np.add.reduceat(counts, frames.first) * wide_bytes,
                frames.plane_first, lows % self.config.near_data_bytes,
            )
        )  # fmt: skip

    def result(self, address: int, each: int) -> None:
        """A stream of `each` bytes per word."""
        self._result(address, self.frames.words * each)

    def image_result(self, address: int, each: int) -> None:
        """A stream of `each` bytes per image and plane."""
        frames = self.frames
        ends = frames.first + frames.words
        images = ends // self.positions - frames.first // self.positions
        self._result(address, images * each)

    def list_result(self, address: int, counts: np.ndarray, plane_bytes: int, wide: int) -> None:
        """A list of `counts` outliers per word that begins anew at each plane."""
        frames = self.frames
        lows = address + np.arange(int(frames.plane_first.sum())) * plane_bytes
        sizes = np.add.reduceat(counts, frames.first) * wide
        self._results.append(
            timing.write_beats(
                self.config, sizes, frames.plane_first, lows % self.config.near_data_bytes,
                frames.plane_last,
            )
        )  # fmt: skip

    def _result(self, address: int, sizes: np.ndarray) -> None:
        index = np.arange(sizes.size)
        self._results.append(
            timing.write_beats(
                self.config, sizes, index == 0, self._lows([address]), index == sizes.size - 1
            )
        )

    def _lows(self, addresses: Sequence[int]) -> np.ndarray:
        return np.array(addresses) % self.config.near_data_bytes

    def cycles(
        self, operation: str, gains: tuple[int, int] | None = None, body: bool = True
    ) -> int:
        """Cycles of the instruction. gains: address and words of what PREPARE writes at its end;
        body: there are words to read or write before."""
        empty = np.zeros(0, np.int64)
        words = self.frames.words if body else empty
        areas = _charge(self._areas, words)
        scans = _charge(self._areas[: self._scanned], words)
        writes = list(self._results)
        if gains is not None:
            address, count = gains
            most = timing.frame_words(self.config)
            more = np.full(-(-count // most), most)
            more[-1] = count - most * (more.size - 1)
            index = np.arange(more.size)
            beats = timing.write_beats(
                self.config, more * 4 * self.config.group, index == 0, self._lows([address]),
                index == more.size - 1,
            )  # fmt: skip
            none = np.zeros(more.size, np.int64)
            writes = [np.concatenate([stream, none]) for stream in writes]
            writes.append(np.concatenate([np.zeros(words.size, np.int64), beats]))
            words = np.concatenate([words, more])
        # The last beat is followed by a cycle of each stream that has none.
        last = [int(stream[-1]) for stream in writes]
        rest = next(i for i, beats in enumerate(reversed(last)) if beats)
        frames = timing.Frames(
            words, scans, areas, _charge(self._lists, areas) if self._lists else None,
            _charge(writes, words), rest,
        )  # fmt: skip
        return timing.engine(
            self.config, operation, self._descriptor, self._tables, self.runs, frames
        )


def _charge(streams: Sequence[np.ndarray], like: np.ndarray) -> np.ndarray:
    """Cycles per frame of streams one after the other, at least one each, and at least one."""
    if not streams:
        return np.ones(like.size, np.int64)
    return np.sum([np.maximum(stream, 1) for stream in streams], axis=0)
