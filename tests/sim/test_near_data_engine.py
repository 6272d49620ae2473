"""The near-data engine against the scalar functions of hw/spec/numerics.py, element by element."""

import numpy as np
import pytest

from signmask.hw.spec import numerics as scalar
from signmask.hw.spec.isa import BOUNDARY_FIELDS, LOOPS, NORMS, STREAM_FIELDS, pack_descriptor
from signmask.sim import compressor
from tests.sim.programs import CONFIG, Bench

N, IMAGES, POSITIONS, STEPS, GROUPS, COUNT = 16, 2, 3, 4, 3, 30
PARTS = ((2, 20), (1, 10))  # planes and valid channels
PLANES = 3
WORDS = PLANES * IMAGES * POSITIONS
VALID = [divmod(c, N) for c in range(20)] + [(2, c) for c in range(10)]
BREAKS, SLOPES, INTERCEPTS = [-900, 0, 700], [3, -40, 250, 4000], [9, -(1 << 14), 0, 77]
NOW, LAST = 3, 1
SEGMENT_BITS, CARRY_BITS, DY_BITS, CHUNK = 2, 3, 5, IMAGES * POSITIONS


class Boundary:
    """A boundary with random state in memory, and the same state as arrays."""

    def __init__(self, loop, norm, spill=0, seed=0, stepped=False):
        rng = np.random.default_rng(seed)
        self.bench, self.loop, self.norm = Bench(memory=1 << 18), loop, norm
        self.y = rng.integers(-300, 300, (PLANES, IMAGES, POSITIONS, N))
        self.dy = rng.integers(-9, 9, self.y.shape)
        self.dy[rng.random(self.dy.shape) < 0.1] *= 40
        self.x_hat = rng.integers(-128, 128, self.y.shape)
        self.gain = rng.integers(-(1 << 21), 1 << 21, (STEPS, PLANES, N))
        self.offset = rng.integers(-(1 << 16), 1 << 16, (STEPS, PLANES, N))
        self.stepped = stepped
        for p in range(PLANES):
            for c in range(N):
                if (p, c) not in VALID:
                    self.gain[:, p, c] = self.offset[:, p, c] = self.y[p, :, :, c] = 0
                    self.dy[p, :, :, c] = self.x_hat[p, :, :, c] = 0
        self.sums = np.stack([self.y.sum(2), (self.y**2).sum(2)], 2)
        self.cal = rng.integers(-900, 900, (2, STEPS, PLANES, N))
        self.mean = rng.integers(-9000, 9000, (STEPS, GROUPS))
        self.inverse, self.sigma = rng.integers(12000, 20000, (2, STEPS, GROUPS))
        self.held = rng.integers(0, 4, self.y.shape)
        self.d = dict(
            source=1, images=IMAGES, positions=POSITIONS, planes=PLANES, parts=2,
            norm_stride=PLANES * N * 8 * stepped,
            loop=LOOPS.index(loop), norm=NORMS.index(norm), spill=spill, segment_bits=SEGMENT_BITS,
            correction_bits=3, carry_bits=CARRY_BITS * (loop == "carry"), z_shift=6, code_shift=12,
            low=-128, high=127, groups=GROUPS, count=COUNT, epsilon=5, gain_shift=45, mean_shift=8,
            cal_stride=0 if norm == "affine" else PLANES * N * 8,
        )  # fmt: skip
        self._free = 4096
        table = np.full((3, N), 1 << 40)
        table[0, :3], table[1, :4], table[2, :4] = BREAKS, SLOPES, INTERCEPTS
        first, second = ((self.y[:2], self.dy[:2], self.sums[:2]),
                         (self.y[2:], self.dy[2:], self.sums[2:]))  # fmt: skip
        for name, values, dtype in (
            ("x_hat", self.x_hat, "<i2"), ("table", table, "<i8"), ("norm_gain", self.gain, "<i8"),
            ("norm_offset", self.offset, "<i8"), ("cal_mean", self.mean, "<i8"),
            ("cal_inverse", self.inverse, "<i8"), ("cal_sigma", self.sigma, "<i8"),
            ("cal_a", self.cal[0], "<i8"), ("cal_b", self.cal[1], "<i8"),
            ("segments", compressor.pack(self.held.reshape(-1, N), SEGMENT_BITS), "u1"),
            ("corrections", np.zeros(WORDS * 8), "u1"),
            ("correction_list", np.zeros(WORDS * N), "<i2"),
            ("residue", np.full(WORDS * N * 3 // 8, 0xA7), "u1"),
            ("gain", np.zeros(PLANES * IMAGES * N), "<i4"),
            ("y_0", first[0], "<i2"), ("y_1", second[0], "<i4"),
            ("sums_0", first[2], "<i8"), ("sums_1", second[2], "<i8"),
        ):  # fmt: skip
            self.d[name] = self._put(values, dtype)
        for part, (planes, channels) in enumerate(PARTS):
            dy, wide = (first[1], second[1])[part], (2, 4)[part]
            area, lists = self._compress(dy.reshape(-1, N), wide)
            self.d |= {
                f"dy_{part}": area, f"dy_list_{part}": lists, f"dy_bits_{part}": DY_BITS,
                f"dy_chunk_{part}": CHUNK, f"y_bytes_{part}": wide, f"planes_{part}": planes,
                f"channels_{part}": channels,
            }  # fmt: skip
        core = self.bench.core
        core.now, core.last, core.after_dense = NOW, LAST, False

    def _put(self, values, dtype):
        address = self._free
        self._free += -(-self.bench.put(address, values, dtype) // 64) * 64
        return address

    def _compress(self, words, wide):
        """Chunks at their places; returns the addresses of both areas."""
        chunks = [compressor.compress(words[at : at + CHUNK], DY_BITS, wide)
                  for at in range(0, len(words), CHUNK)]  # fmt: skip
        lists = np.zeros((len(chunks), CHUNK * N * wide), np.uint8)
        for row, (_, outliers) in zip(lists, chunks, strict=True):
            row[: outliers.size] = outliers
        return self._put(np.concatenate([a for a, _ in chunks]), "u1"), self._put(lists, "u1")

    def execute(self, name):
        self.bench.put(0, pack_descriptor(BOUNDARY_FIELDS, self.d), "<i8")
        self.bench.counters.reset()
        return self.bench.execute(name, descriptor=0)

    def constants(self, p, i, c):
        """(A, B, gain) by the tables of docs/numerics.md."""
        cal = [[int(v) for v in self.cal[:, t, p, c]] for t in (NOW, LAST)]
        closed = self.loop == "closed"
        if self.norm == "affine":
            a, b = (int(v) for v in self.cal[:, 0, p, c])
            return a, b, a
        if self.norm == "calibrated":
            average = scalar.shift_round(cal[0][0] + cal[1][0], 1)
            return (*cal[0], cal[0][0]) if closed else (*cal[1], average)
        if (p, c) not in VALID:
            return 0, 0, 0
        g = VALID.index((p, c)) // 10
        members = VALID[g * 10 : g * 10 + 10]
        total, squares = (sum(int(self.sums[q, i, k, e]) for q, e in members) for k in (0, 1))
        mean, r, h = scalar.group_moments(total, squares, COUNT, 5)
        moved = scalar.move_by_trend(
            mean, r, int(self.mean[LAST, g]), int(self.mean[NOW, g]), int(self.inverse[NOW, g]),
            int(self.sigma[LAST, g]),
        )  # fmt: skip
        shapes = [
            (int(self.gain[t, p, c]), int(self.offset[t, p, c]), 45, 8)
            for t in ((NOW, LAST) if self.stepped else (0, 0))
        ]
        now = scalar.channel_constants(*moved, h, *shapes[0])
        last = scalar.channel_constants(mean, r, h, *shapes[1])
        return (*now, now[0]) if closed else (*last, now[0])

    def prepared(self):
        """(segments, codes, gains) by the definition."""
        segments, codes = np.zeros(self.y.shape, int), np.zeros(self.y.shape, int)
        gains = np.zeros((PLANES, IMAGES, N), int)
        for p, i, x, c in np.ndindex(self.y.shape):
            a, b, gains[p, i, c] = self.constants(p, i, c)
            z = scalar.pre_activation(int(self.y[p, i, x, c]), a, b, 6)
            s = segments[p, i, x, c] = scalar.segment_index(z, BREAKS)
            codes[p, i, x, c] = scalar.activation_code(z, SLOPES[s], INTERCEPTS[s], 12, -128, 127)
        return segments, codes, gains

    def unpack(self, name, bits, signed):
        packed = self.bench.get(self.d[name], WORDS * N * bits // 8, "u1").reshape(WORDS, -1)
        return compressor.unpack(packed, N, bits, signed).reshape(self.y.shape).astype(int)

    def corrections(self):
        size = WORDS * 8 // PLANES
        found = []
        for p in range(PLANES):
            area = self.bench.get(self.d["corrections"] + p * size, size, "u1")
            values, outlier = compressor.decompress_area(area, N, 3)
            at = self.d["correction_list"] + p * CHUNK * N * 2
            values[outlier] = self.bench.get(at, np.count_nonzero(outlier), "<i2")
            found.append(values)
        return np.stack(found).reshape(self.y.shape).astype(int)


CASES = [(loop, norm) for loop in LOOPS for norm in NORMS]


@pytest.mark.parametrize("after_dense", [False, True])
@pytest.mark.parametrize(("loop", "norm"), CASES)
def test_prepare(loop, norm, after_dense):
    boundary = Boundary(loop, norm)
    boundary.bench.core.after_dense = after_dense
    segments, codes, gains = boundary.prepared()
    assert len(np.unique(segments)) == 4
    cost = boundary.execute("PREPARE")
    assert np.array_equal(boundary.unpack("segments", SEGMENT_BITS, False), segments)
    gain = boundary.bench.get(boundary.d["gain"], PLANES * IMAGES * N, "<i4")
    if norm == "affine":
        assert np.array_equal(gain[: PLANES * N], gains[:, 0].reshape(-1))
    else:
        assert np.array_equal(gain, gains.reshape(-1))
    if loop == "closed":
        assert np.array_equal(boundary.corrections(), np.clip(codes - boundary.x_hat, -256, 255))
    residue = boundary.bench.get(boundary.d["residue"], WORDS * 6, "u1")
    assert (residue == (0 if after_dense and loop == "carry" else 0xA7)).all()
    changes = sum(int((segments[p, :, :, c] != boundary.held[p, :, :, c]).sum()) for p, c in VALID)
    counters = boundary.bench.counters.result()
    assert counters.get("b", {"segment_changes": 0})["segment_changes"] == (
        0 if after_dense else changes
    )
    moved = boundary.bench.counters.traffic["near_data"]
    assert cost.occupied == cost.done > max(WORDS, moved / CONFIG.near_data_bytes)
    assert moved > boundary.y.size * 2


@pytest.mark.parametrize("loop", LOOPS)
def test_prepare_with_a_gain_per_step(loop):
    stepped, fixed = (Boundary(loop, "trend", stepped=flag) for flag in (True, False))
    segments, _, gains = stepped.prepared()
    costs = [boundary.execute("PREPARE") for boundary in (stepped, fixed)]
    assert np.array_equal(stepped.unpack("segments", SEGMENT_BITS, False), segments)
    gain = stepped.bench.get(stepped.d["gain"], PLANES * IMAGES * N, "<i4")
    assert np.array_equal(gain, gains.reshape(-1))
    assert not np.array_equal(gains, fixed.prepared()[2])
    if loop != "closed":  # the gain of the other step
        moved = [b.bench.counters.traffic["near_data"] for b in (stepped, fixed)]
        assert moved[0] - moved[1] == PLANES * N * 8
        assert costs[0].done > costs[1].done


@pytest.mark.parametrize("stepped", [False, True])
def test_a_boundary_without_segments_takes_the_constants_of_its_step_alone(stepped):
    boundary = Boundary("open", "trend", stepped=stepped)
    boundary.d["segment_bits"] = 0
    _, _, gains = boundary.prepared()
    boundary.execute("PREPARE")
    gain = boundary.bench.get(boundary.d["gain"], PLANES * IMAGES * N, "<i4")
    assert np.array_equal(gain, gains.reshape(-1))


@pytest.mark.parametrize("spill", [0, 1])
@pytest.mark.parametrize(("loop", "norm"), CASES)
def test_update_codes(loop, norm, spill):
    b = Boundary(loop, norm, spill)
    segments, _, gains = b.prepared()
    b.execute("PREPARE")
    extra = b.corrections() if loop == "closed" else b.unpack("residue", 3, True)
    b.execute("UPDATE_CODES")
    deltas, residues = np.zeros(b.y.shape, int), np.zeros(b.y.shape, int)
    for at in np.ndindex(b.y.shape):
        dz = scalar.pre_activation(int(b.dy[at]), int(gains[at[0], at[1], at[3]]), 0, 6)
        slope = SLOPES[segments[at]]
        if loop == "carry":
            q = scalar.masked_delta(dz, slope, 12, int(extra[at]), CARRY_BITS)
            deltas[at] = scalar.shift_round(q, CARRY_BITS)
            residues[at] = q - (deltas[at] << CARRY_BITS)
        else:
            deltas[at] = scalar.masked_delta(dz, slope, 12, 0, 0)
            deltas[at] += int(extra[at]) if loop == "closed" else 0
    sent = np.array(
        [scalar.encode_group([int(d) for d in row], 3, CONFIG.full_lanes, bool(spill))
         for row in deltas.reshape(-1, N)]
    ).reshape(b.y.shape)  # fmt: skip
    x_hat = b.bench.get(b.d["x_hat"], b.y.size, "<i2").reshape(b.y.shape)
    assert np.array_equal(x_hat, b.x_hat + sent)
    if loop == "carry":
        assert np.array_equal(b.unpack("residue", CARRY_BITS, True), residues)


@pytest.mark.parametrize("y_bytes", [2, 4])
def test_update_stream_and_read(y_bytes):
    rng, b, shape = np.random.default_rng(3), Bench(), (2, IMAGES, POSITIONS, N)
    top = (1 << 8 * y_bytes - 1) - 1
    y = rng.integers(-2000, 2000, shape)
    y[0, 0, 0, :4] = y[1, 1, 2, 15] = top - 5  # lane 15 of the last plane is padding
    dy = rng.integers(-60, 60, shape)
    dy[0, 0, 0, :4] = dy[1, 1, 2, 15] = 6
    words = IMAGES * POSITIONS
    d = dict(stream=1, images=IMAGES, positions=POSITIONS, planes=2, channels=20, y=4096,
             y_bytes=y_bytes, sums=8192, stat_shift=3, dy=16384, dy_list=20480, dy_bits=5,
             dy_chunk=words, codes=32768, multiplier=300, shift=12)  # fmt: skip
    b.put(0, pack_descriptor(STREAM_FIELDS, d), "<i8")
    b.put(4096, y, f"<i{y_bytes}")
    for p in range(2):
        area, outliers = compressor.compress(dy[p].reshape(-1, N), 5, y_bytes)
        b.put(16384 + p * area.size, area, "u1")
        b.put(20480 + p * words * N * y_bytes, outliers, "u1")
    b.execute("UPDATE_STREAM", descriptor=0)
    want = np.clip(y + dy, -top - 1, top)
    assert np.array_equal(b.get(4096, y.size, f"<i{y_bytes}"), want.reshape(-1))
    assert b.counters.result()["streams"] == {"s": 0, "t": 4}
    shifted = want >> 3
    sums = np.stack([shifted.sum(2), (shifted**2).sum(2)], 2)
    assert np.array_equal(b.get(8192, sums.size, "<i8"), sums.reshape(-1))
    b.execute("READ", descriptor=0)
    codes = [scalar.saturate(scalar.requantise(int(v), 300, 12), 8) for v in want.reshape(-1)]
    assert b.get(32768, y.size, "i1").tolist() == codes
