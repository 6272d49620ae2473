"""Near-data engine: state of mask boundaries and streams, on the memory side of the port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from signmask.hw.spec import engine_timing, timing
from signmask.hw.spec.isa import BOUNDARY_FIELDS, LOOPS, NORMS, STREAM_FIELDS, unpack_descriptor
from signmask.hw.spec.numerics import DELTA_BITS
from signmask.sim import arithmetic, compressor
from signmask.sim.activation import Activation
from signmask.sim.core import Core, Cost, Execute, Fields
from signmask.sim.errors import Fault
from signmask.sim.near_data_cost import Work
from signmask.sim.normalisation import Moments, Normalisation, Part, channel_places
from signmask.sim.outlier_selector import OutlierSelector

CORRECTION_BYTES = 2  # of a wide correction code

Descriptor = Mapping[str, int]


class NearDataEngine:
    """Executes PREPARE, UPDATE_CODES, UPDATE_STREAM and READ."""

    def __init__(self, core: Core, selector: OutlierSelector) -> None:
        self.core, self.selector = core, selector
        self._moved = 0  # bytes of the instruction being executed
        self.instructions: dict[str, Execute] = {
            "PREPARE": self.prepare,
            "UPDATE_CODES": self.update_codes,
            "UPDATE_STREAM": self.update_stream,
            "READ": self.read,
        }

    def _read(self, address: int, count: int, dtype: str = "u1") -> np.ndarray:
        data = self.core.memory.read(address, count, dtype)
        self._moved += data.nbytes
        return data

    def _write(self, address: int, values: np.ndarray) -> None:
        self.core.memory.write(address, values)
        self._moved += values.nbytes

    def _cost(self, cycles: int) -> Cost:
        self.core.counters.traffic["near_data"] += self._moved
        return Cost(cycles, cycles)

    def _descriptor(self, f: Fields, names: tuple[str, ...]) -> Descriptor:
        self._moved = 0
        self._work = Work(self.core.config, f["descriptor"], 8 * len(names))
        d = unpack_descriptor(names, self._read(f["descriptor"], len(names), "i8"))
        if d["images"] < 1 or d["positions"] < 1 or d["planes"] < 1:
            raise Fault(f"has a descriptor at {f['descriptor']} that is empty")
        return d

    def _parts(self, d: Descriptor) -> tuple[Part, ...]:
        parts = tuple(Part(d[f"planes_{i}"], d[f"channels_{i}"]) for i in range(d["parts"]))
        if sum(part.planes for part in parts) != d["planes"]:
            raise Fault(f"has a descriptor of {d['planes']} planes whose parts have others")
        config = self.core.config
        needed = engine_timing.table_words(
            config, d["planes"], d["images"], d["groups"], NORMS[d["norm"]], LOOPS[d["loop"]],
            bool(d["segment_bits"]), bool(d["norm_stride"]),
        )  # fmt: skip
        if needed > config.engine_words:
            raise Fault(f"needs {needed} table words and the engine has {config.engine_words}")
        return parts

    def _shape(self, d: Descriptor) -> tuple[int, int, int, int]:
        """(planes, images, positions, n)."""
        return d["planes"], d["images"], d["positions"], self.core.config.group

    def _compressed(
        self, address: int, outliers: int, words: int, bits: int, wide_bytes: int, chunk: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """int64 (words, n) of a compressed tensor whose outlier lists start anew every chunk, and
        the number of outliers of each word."""
        n = self.core.config.group
        area = self._read(address, compressor.area_bytes(words, n, bits))
        inliers, wide = compressor.decompress_area(area, n, bits)
        values = inliers.astype(np.int64)
        if wide.any():
            for start in range(0, words, chunk or words):
                here = wide[start : start + (chunk or words)]
                count = int(np.count_nonzero(here))
                if count:
                    at = outliers + start * n * wide_bytes
                    # A slice of rows is a view, so this fills `values`.
                    values[start : start + len(here)][here] = self._read(
                        at, count, f"i{wide_bytes}"
                    )
        return values, np.count_nonzero(wide, axis=1)

    def _by_part(self, d: Descriptor, what: str) -> np.ndarray:
        """y, dy or sums of all parts, concatenated along planes."""
        n, images, positions = self.core.config.group, d["images"], d["positions"]
        pieces, counts = [], []
        for i, part in enumerate(self._parts(d)):
            words = part.planes * images * positions
            wide = d[f"y_bytes_{i}"]
            if what == "y":
                piece = self._read(d[f"y_{i}"], words * n, f"i{wide}")
                pieces.append(piece.reshape(part.planes, images, positions, n))
            elif what == "dy":
                piece, count = self._compressed(
                    d[f"dy_{i}"], d[f"dy_list_{i}"], words, d[f"dy_bits_{i}"], wide,
                    d[f"dy_chunk_{i}"],
                )  # fmt: skip
                counts.append(count)
                pieces.append(piece.reshape(part.planes, images, positions, n))
            else:
                piece = self._read(d[f"sums_{i}"], part.planes * images * 2 * n, "i8")
                self._work.table(d[f"sums_{i}"], piece.nbytes)
                pieces.append(piece.reshape(part.planes, images, 2, n))
        every = range(len(pieces))
        if what == "y":
            sizes = [n * d[f"y_bytes_{i}"] for i in every]
            self._work.area([d[f"y_{i}"] for i in every], sizes)
        elif what == "dy":
            sizes = [n * (1 + d[f"dy_bits_{i}"]) // 8 for i in every]
            self._work.area([d[f"dy_{i}"] for i in every], sizes, scanned=True)
            self._work.outliers(
                np.concatenate(counts), [d[f"dy_list_{i}"] for i in every],
                [d[f"dy_chunk_{i}"] for i in every], [d[f"y_bytes_{i}"] for i in every],
            )  # fmt: skip
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _activation(self, d: Descriptor) -> Activation:
        n = self.core.config.group
        table = self._read(d["table"], 3 * n, "i8").reshape(3, n)
        self._work.table(d["table"], table.nbytes)
        return Activation(table, d["z_shift"], d["code_shift"], d["low"], d["high"])

    def _calibrated(self, d: Descriptor, step: int) -> tuple[np.ndarray, np.ndarray]:
        planes, _, _, n = self._shape(d)
        offset = step * d["cal_stride"]
        tables = []
        for name in ("cal_a", "cal_b"):
            table = self._read(d[name] + offset, planes * n, "i8").reshape(planes, 1, n)
            self._work.table(d[name] + offset, table.nbytes)
            tables.append(table)
        return tables[0], tables[1]

    def _constants(self, d: Descriptor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(A, B, gain) with A and B of z and segment, int64 (planes, images or 1, n)."""
        core, closed = self.core, LOOPS[d["loop"]] == "closed"
        norm = NORMS[d["norm"]]
        if norm == "affine":
            a, b = self._calibrated(d, 0)
            return a, b, a
        if norm == "calibrated":
            if closed:
                a, b = self._calibrated(d, core.now)
                return a, b, a
            a_last, b_last = self._calibrated(d, core.last)
            a, _ = self._calibrated(d, core.now)
            return a_last, b_last, arithmetic.shift_round(a + a_last, 1)
        return self._trend_constants(d, bool(not closed and d["segment_bits"]))

    def _trend_constants(
        self, d: Descriptor, both: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(A, B, gain) from sums: A and B are those of `last` where those of `now` (`both`) serve
        the gain alone."""
        core, n, parts = self.core, self.core.config.group, self._parts(d)
        first = core.last if both else core.now
        gain, offset = (self._norm_row(d, name, first) for name in ("norm_gain", "norm_offset"))
        gain_now = gain
        if both and d["norm_stride"]:
            gain_now = self._norm_row(d, "norm_gain", core.now)
        normalisation = Normalisation(d, parts, n, gain, offset)
        moments = normalisation.moments(self._by_part(d, "sums"))
        moved = self._moved_by_trend(d, moments)
        shape = core.config, d["images"], [part.channels for part in parts], d["groups"]
        if both:
            self._work.runs.append(timing.normalisation(*shape))
        self._work.runs.append(timing.normalisation(*shape, trend=True))
        a_now, b_now = replace(normalisation, gain=gain_now).constants(moved)
        a, b = normalisation.constants(moments) if both else (a_now, b_now)
        return a, b, a_now

    def _norm_row(self, d: Descriptor, name: str, step: int) -> np.ndarray:
        """Gain or offset of all channels in a step."""
        address = d[name] + step * d["norm_stride"]
        count = d["planes"] * self.core.config.group
        self._work.table(address, 8 * count)
        return self._read(address, count, "i8")

    def _moved_by_trend(self, d: Descriptor, moments: Moments) -> Moments:
        core, groups = self.core, d["groups"]

        def table(name: str, step: int) -> np.ndarray:
            self._work.table(d[name] + step * groups * 8, groups * 8)
            return self._read(d[name] + step * groups * 8, groups, "i8")

        mean, r = arithmetic.move_by_trend(
            moments.mean, moments.r, table("cal_mean", core.last), table("cal_mean", core.now),
            table("cal_inverse", core.now), table("cal_sigma", core.last),
        )  # fmt: skip
        return Moments(mean, r, moments.h)

    def prepare(self, f: Fields) -> Cost:
        """Segments, gains and, in a closed loop, correction codes of a boundary."""
        d = self._descriptor(f, BOUNDARY_FIELDS)
        planes, images, positions, n = self._shape(d)
        if d["loop"] >= len(LOOPS) or d["norm"] >= len(NORMS):
            raise Fault(f"has a descriptor at {f['descriptor']} with an unknown loop or norm")
        closed = LOOPS[d["loop"]] == "closed"
        coded = bool(closed or d["segment_bits"])
        work = self._work
        activation = self._activation(d) if coded else None
        a, b, gain = self._constants(d)
        work.begin([part.planes for part in self._parts(d)], images, positions)
        if activation is not None:
            y = self._by_part(d, "y")
            code, segment = activation.encode(y, a[:, :, None], b[:, :, None])
            x_hat = self._x_hat(d) if closed else None
            corrections = None if x_hat is None else arithmetic.saturate(code - x_hat, DELTA_BITS)
            if corrections is not None:
                counts = self._write_corrections(d, corrections)
            if d["segment_bits"]:
                self._write_segments(d, segment)
            if corrections is not None:
                plane_bytes = images * positions * n * CORRECTION_BYTES
                work.list_result(d["correction_list"], counts, plane_bytes, CORRECTION_BYTES)
        zeroed = LOOPS[d["loop"]] == "carry" and d["residue"] and d["carry_bits"]
        zeroed = bool(zeroed and self.core.after_dense)
        if zeroed:
            size = compressor.packed_bytes(planes * images * positions, n, d["carry_bits"])
            self._write(d["residue"], np.zeros(size, np.uint8))
            work.result(d["residue"], n * d["carry_bits"] // 8)
        if NORMS[d["norm"]] != "affine":
            gain = np.broadcast_to(gain, (planes, images, n))
        self._write(d["gain"], gain.astype("<i4"))
        gains = d["gain"], gain.size // n
        return self._cost(work.cycles("PREPARE", gains, body=coded or zeroed))

    def _x_hat(self, d: Descriptor) -> np.ndarray:
        """int16 (planes, images, positions, n)."""
        shape = planes, images, positions, n = self._shape(d)
        self._work.area([d["x_hat"]], [2 * n])
        return self._read(d["x_hat"], planes * images * positions * n, "i2").reshape(shape)

    def _write_segments(self, d: Descriptor, segment: np.ndarray) -> None:
        n, bits = self.core.config.group, d["segment_bits"]
        packed = compressor.pack(segment.reshape(-1, n), bits)
        self._work.result(d["segments"], n * bits // 8)
        if not self.core.after_dense:
            self._work.area([d["segments"]], [n * bits // 8])
            held = self._read(d["segments"], packed.size).reshape(packed.shape)
            before = compressor.unpack(held, n, bits, signed=False)
            differ = (before != segment.reshape(-1, n)).reshape(d["planes"], -1, n)
            channels = differ.transpose(1, 0, 2).reshape(differ.shape[1], -1)
            valid = channels[:, channel_places(self._parts(d), n)]
            self.core.counters.segment_changes(d["source"], int(np.count_nonzero(valid)))
        self._write(d["segments"], packed)

    def _write_corrections(self, d: Descriptor, correction: np.ndarray) -> np.ndarray:
        """Returns the number of outliers of each word."""
        planes, images, positions, n = self._shape(d)
        words = images * positions
        size = compressor.area_bytes(words, n, d["correction_bits"])
        self._work.result(d["corrections"], size // words)
        counts = []
        for plane in range(planes):
            area, outliers = compressor.compress(
                correction[plane].reshape(-1, n), d["correction_bits"], CORRECTION_BYTES
            )
            self._write(d["corrections"] + plane * size, area)
            self._write(d["correction_list"] + plane * words * n * CORRECTION_BYTES, outliers)
            bitmaps = area.reshape(words, -1)[:, : n // 8]
            counts.append(np.bitwise_count(bitmaps).sum(axis=1, dtype=np.int64))
        return np.concatenate(counts)

    def update_codes(self, f: Fields) -> Cost:
        """Replay what the encoder sent and add it to x^."""
        d = self._descriptor(f, BOUNDARY_FIELDS)
        planes, images, positions, n = shape = self._shape(d)
        if d["loop"] >= len(LOOPS):
            raise Fault(f"has a descriptor at {f['descriptor']} with an unknown loop")
        words, loop, work = planes * images * positions, LOOPS[d["loop"]], self._work
        activation = self._activation(d)
        work.begin([part.planes for part in self._parts(d)], images, positions)
        dy = self._by_part(d, "dy")
        if d["segment_bits"]:
            size = compressor.packed_bytes(words, n, d["segment_bits"])
            packed = self._read(d["segments"], size).reshape(words, -1)
            segment = compressor.unpack(packed, n, d["segment_bits"], signed=False)
        else:
            segment = np.zeros((words, n), np.uint8)
        each = 1 if NORMS[d["norm"]] == "affine" else images
        gain = self._read(d["gain"], planes * each * n, "i4").reshape(planes, each, 1, n)
        work.table(d["gain"], gain.nbytes, 4)
        correction: np.ndarray | None = None
        residue_size = compressor.packed_bytes(words, n, d["carry_bits"])
        if loop == "closed":
            correction, counts = self._compressed(
                d["corrections"], d["correction_list"], words, d["correction_bits"],
                CORRECTION_BYTES, images * positions,
            )  # fmt: skip
            correction = correction.reshape(shape)
            work.area([d["corrections"]], [n * (1 + d["correction_bits"]) // 8], scanned=True)
            plane_bytes = images * positions * n * CORRECTION_BYTES
            work.plane_outliers(counts, d["correction_list"], plane_bytes, CORRECTION_BYTES)
        elif loop == "carry":
            packed = self._read(d["residue"], residue_size).reshape(words, -1)
            work.area([d["residue"]], [n * d["carry_bits"] // 8], scanned=True)
            correction = compressor.unpack(packed, n, d["carry_bits"], signed=True).reshape(shape)
        deltas, residue = activation.delta(
            dy, gain, segment.reshape(shape), loop, correction, d["carry_bits"]
        )
        sent, _ = self.selector.encode(deltas, bool(d["spill"]))
        x_hat = self._x_hat(d)
        if d["segment_bits"]:
            work.area([d["segments"]], [n * d["segment_bits"] // 8])
        self._write(d["x_hat"], x_hat + sent)
        work.result(d["x_hat"], 2 * n)
        if residue is not None:
            self._write(d["residue"], compressor.pack(residue.reshape(-1, n), d["carry_bits"]))
            work.result(d["residue"], n * d["carry_bits"] // 8)
        return self._cost(work.cycles("UPDATE_CODES"))

    def update_stream(self, f: Fields) -> Cost:
        """Add dy to y, and sum y for the next step's statistics."""
        d = self._descriptor(f, STREAM_FIELDS)
        shape = planes, images, positions, n = self._shape(d)
        words, wide, work = planes * images * positions, d["y_bytes"], self._work
        dy, counts = self._compressed(
            d["dy"], d["dy_list"], words, d["dy_bits"], wide, d["dy_chunk"]
        )
        work.begin([planes], images, positions)
        work.area([d["dy"]], [n * (1 + d["dy_bits"]) // 8], scanned=True)
        work.area([d["y"]], [n * wide])
        work.outliers(counts, [d["dy_list"]], [d["dy_chunk"]], [wide])
        total = self._read(d["y"], words * n, f"i{wide}").reshape(words, n) + dy
        y = arithmetic.saturate(total, 8 * wide)
        self._count_saturated(d, y != total)
        self._write(d["y"], y.astype(f"<i{wide}"))
        work.result(d["y"], n * wide)
        if d["sums"]:
            shifted = (y >> d["stat_shift"]).reshape(shape)
            squares = np.einsum("pixn,pixn->pin", shifted, shifted)
            self._write(d["sums"], np.stack([shifted.sum(axis=2), squares], axis=2))
            work.image_result(d["sums"], 16 * n)
        return self._cost(work.cycles("UPDATE_STREAM"))

    def _count_saturated(self, d: Descriptor, saturated: np.ndarray) -> None:
        if not saturated.any():
            return
        n = self.core.config.group
        valid = channel_places((Part(d["planes"], d["channels"]),), n)
        by_channel = saturated.reshape(d["planes"], -1, n).transpose(1, 0, 2)
        count = int(np.count_nonzero(by_channel.reshape(by_channel.shape[0], -1)[:, valid]))
        self.core.counters.saturations(d["stream"], count)

    def read(self, f: Fields) -> Cost:
        """Codes of a stream as attention operands."""
        d = self._descriptor(f, STREAM_FIELDS)
        planes, images, positions, n = self._shape(d)
        words = planes * images * positions
        y = self._read(d["y"], words * n, f"i{d['y_bytes']}")
        codes = arithmetic.saturate(arithmetic.requantise(y, d["multiplier"], d["shift"]), 8)
        self._write(d["codes"], codes.astype(np.int8))
        self._work.begin([planes], images, positions)
        self._work.area([d["y"]], [n * d["y_bytes"]])
        self._work.result(d["codes"], n)
        return self._cost(self._work.cycles("READ"))
