"""The vector unit against the scalar functions of hw/spec/numerics.py, element by element."""

import numpy as np
import pytest

from signmask.hw.spec import numerics as scalar
from signmask.hw.spec import timing
from signmask.hw.spec.isa import LOOPS, NORM_RECORD, pack_descriptor
from signmask.sim.errors import Fault
from tests.sim.programs import CONFIG, Bench

PLANES, IMAGES, POSITIONS, N = 2, 2, 3, 16
WORDS = PLANES * IMAGES * POSITIONS
BREAKS, SLOPES, INTERCEPTS = [-900, 0, 700], [3, -40, 250, 4000], [9, -(1 << 14), 0, 77]


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def elements():
    for word in np.ndindex(PLANES, IMAGES, POSITIONS, N):
        p, i, x, c = word
        yield p, i, c, ((p * IMAGES + i) * POSITIONS + x, c)


def segment_words():
    table = np.full((3, N), 1 << 40)
    table[0, :3], table[1, :4], table[2, :4] = BREAKS, SLOPES, INTERCEPTS
    return table


def filled(rng, low=-3000, high=3000):
    b = Bench()
    b.core.accumulator.data[:] = rng.integers(low, high, b.core.accumulator.data.shape)
    b.core.parameter.data[0:3] = segment_words()
    return b, b.core.accumulator.data.astype(np.int64)


def counted(sent, clipped, lanes):
    """Counters of (WORDS, N) sent values with `lanes` valid channels in the last plane."""
    valid = np.ones(sent.shape, bool)
    valid[WORDS - WORDS // PLANES :, lanes:] = False
    outlier = (sent < -4) | (sent > 3)
    return {
        "zero": int((valid & (sent == 0)).sum()),
        "inlier": int((valid & (sent != 0) & ~outlier).sum()),
        "outlier": int((valid & outlier).sum()),
        "clipped": int((valid & clipped).sum()),
        "elements": int(valid.sum()),
        "segment_changes": 0,
    }


def encode(deltas, spill):
    """Scalar encoder over (words, N)."""
    return np.array(
        [scalar.encode_group([int(d) for d in row], 3, CONFIG.full_lanes, spill) for row in deltas]
    )


@pytest.mark.parametrize("shift", [0, 11, 63])
@pytest.mark.parametrize("bits", [0, 9])
def test_requantise(rng, shift, bits):
    b, acc = filled(rng, -100, 100)
    b.core.parameter.data[3:40] = parameters = rng.integers(-500, 500, (37, N))
    multiplier, now, last, sums = 3, 7, 11, 50
    cost = b.execute(
        "REQUANTISE", accumulator=20, words=WORDS, planes=PLANES, images=IMAGES, shift=shift,
        multiplier=multiplier, has_table=1, now=now, has_last=1, last=last, has_add=1, add=100,
        bits=bits, has_sums=1, sums=sums, stat_shift=1, lanes=N,
    )  # fmt: skip
    want = np.zeros((WORDS, N), int)
    totals = np.zeros((PLANES, IMAGES, 2, N), int)
    for p, i, c, at in elements():
        own = int(acc[20 + at[0], c])
        if shift != 63:
            own = scalar.requantise(own, int(parameters[multiplier - 3 + p, c]), shift)
        own += int(parameters[now - 3 + p, c] - parameters[last - 3 + p, c] + acc[100 + at[0], c])
        want[at] = scalar.saturate(own, bits) if bits else own
        y = int(want[at]) >> 1
        totals[p, i, :, c] += (y, y * y)
    assert np.array_equal(b.core.accumulator.data[20 : 20 + WORDS], want)
    assert np.array_equal(b.core.parameter.data[50 : 50 + totals.size // N], totals.reshape(-1, N))
    assert cost == (timing.requantise(WORDS, PLANES * IMAGES, sums=True),) * 2


def test_quantise_and_copy(rng):
    b, acc = filled(rng)
    b.execute("QUANTISE", accumulator=4, words=5, multiplier=77, shift=11)
    want = [[scalar.saturate(scalar.requantise(int(v), 77, 11), 8) for v in r] for r in acc[4:9]]
    assert b.core.accumulator.data[4:9].tolist() == want
    b.execute("COPY", accumulator=4, words=5, output=6)
    assert b.core.accumulator.data[6:11].tolist() == want


@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize(("difference", "spill"), [(0, 0), (1, 0), (1, 1)])
def test_encode_raw(rng, shared, difference, spill):
    b, acc = filled(rng, -2000, 2000)
    stride = 3
    constants = rng.integers(-2000, 2000, (100, N))
    b.core.parameter.data[10:110] = constants
    b.execute(
        "ENCODE_RAW", accumulator=0, words=WORDS, planes=PLANES, images=IMAGES, constants=10,
        constants_stride=stride, shared_constants=shared, segments=0, z_shift=9, code_shift=8,
        low=-100, high=127, codes=60, input=30, difference=difference, previous=100, spill=spill,
        lanes=5, source=1,
    )  # fmt: skip
    codes = np.zeros((WORDS, N), int)
    for p, i, c, at in elements():
        pair = 2 * p if shared else (p * IMAGES + i) * stride
        a, offset = int(constants[pair, c]), int(constants[pair + 1, c])
        z = scalar.pre_activation(int(acc[at]), a, offset, 9)
        s = scalar.segment_index(z, BREAKS)
        codes[at] = scalar.activation_code(z, SLOPES[s], INTERCEPTS[s], 8, -100, 127)
    assert len(np.unique(codes)) > 50
    operand = codes
    if difference:
        previous = acc[100 : 100 + WORDS]
        deltas, operand = codes - previous, encode(codes - previous, spill)
        codes = previous + operand
        clipped = operand != np.clip(deltas, -256, 255)
        assert b.counters.result()["b"] == counted(operand, clipped, 5)
    assert np.array_equal(b.core.input.data[30 : 30 + WORDS], operand)
    assert np.array_equal(b.core.accumulator.data[60 : 60 + WORDS], codes)
    assert ("b" in b.counters.result()) == bool(difference)


@pytest.mark.parametrize("spill", [0, 1])
@pytest.mark.parametrize("shared", [0, 1])
@pytest.mark.parametrize("loop", LOOPS)
def test_encode_mask(rng, loop, shared, spill):
    b, acc = filled(rng, -40, 40)
    b.core.parameter.data[10:50] = gains = rng.integers(-900, 900, (40, N))
    b.core.segments.data[7 : 7 + WORDS] = segments = rng.integers(0, 4, (WORDS, N))
    b.core.corrections.data[7 : 7 + WORDS] = extra = rng.integers(-4, 4, (WORDS, N))
    b.execute(
        "ENCODE_MASK", accumulator=0, words=WORDS, planes=PLANES, images=IMAGES, gain=10,
        shared_constants=shared, segments=0, z_shift=4, code_shift=12, mask=7,
        loop=LOOPS.index(loop), carry_bits=3, input=30, spill=spill, lanes=5, source=0,
    )  # fmt: skip
    deltas = np.zeros((WORDS, N), int)
    for p, i, c, at in elements():
        gain = int(gains[p if shared else p * IMAGES + i, c])
        dz = scalar.pre_activation(int(acc[at]), gain, 0, 4)
        slope, own = SLOPES[segments[at]], int(extra[at])
        if loop == "carry":
            q = scalar.masked_delta(dz, slope, 12, own, 3)
            deltas[at] = scalar.shift_round(q, 3)
        else:
            deltas[at] = scalar.masked_delta(dz, slope, 12, 0, 0) + own * (loop == "closed")
    want = encode(deltas, spill)
    assert np.array_equal(b.core.input.data[30 : 30 + WORDS], want)
    clipped = want != np.clip(deltas, -256, 255)
    assert clipped.any() == (not spill)
    assert b.counters.result()["a"] == counted(want, clipped, 5)


@pytest.mark.parametrize("track", [0, 1])
def test_encode_source(rng, track):
    b, acc = filled(rng, -128, 128)
    fields = dict(accumulator=0, words=WORDS, planes=PLANES, input=30, lanes=5, source=1)
    b.execute("ENCODE_SOURCE", **fields)
    assert np.array_equal(b.core.input.data[30 : 30 + WORDS], acc[:WORDS])
    b.execute("ENCODE_SOURCE", **fields, difference=1, previous=100, track=track)
    sent = encode(acc[:WORDS] - acc[100 : 100 + WORDS], False)
    assert np.array_equal(b.core.input.data[30 : 30 + WORDS], sent)
    kept = acc[100 : 100 + WORDS] + sent if track else acc[:WORDS]
    assert np.array_equal(b.core.accumulator.data[:WORDS], kept)
    assert b.counters.result()["b"]["elements"] == WORDS * N - WORDS // PLANES * (N - 5)


@pytest.mark.parametrize(("shift", "distinct"), [(0, 2), (24, 60), (63, 1)])
def test_multiply(rng, shift, distinct):
    b, acc = filled(rng, -128, 128)
    cost = b.execute("MULTIPLY", accumulator=3, other=40, words=9, zero_a=-128, zero_b=100,
                     multiplier=50000, shift=shift, zero=-7, output=3)  # fmt: skip
    want = [
        scalar.product_code(int(a) + 128, int(c) - 100, 50000, shift, -7)
        for a, c in zip(acc[3:12].reshape(-1), acc[40:49].reshape(-1), strict=True)
    ]
    assert len(set(want)) >= distinct
    assert b.core.accumulator.data[3:12].reshape(-1).tolist() == want
    assert cost.done == timing.vector(9, timing.MULTIPLY_FILL)


TOKEN = dict(accumulator=3, stride=7, tokens=5, planes=2, count=21, epsilon=9, stat_shift=1,
             shift=30, output=100, output_stride=6)  # fmt: skip


@pytest.mark.parametrize("uncentred", [0, 1])
@pytest.mark.parametrize("in_place", [0, 1])
def test_normalise_tokens(rng, uncentred, in_place):
    b, f = Bench(), TOKEN | (dict(output=3, output_stride=7) if in_place else {})
    values = rng.integers(-900, 1200, (2, 5, N))
    values[1, :, 5:] = values[:, 1] = 0  # padding; a token of zeros
    values[:, 2] = 4
    values[1, 2, 5:] = 0
    for p in range(2):
        b.core.accumulator.data[3 + 7 * p : 8 + 7 * p] = values[p]
    cost = b.execute("NORMALISE_TOKENS", **f, uncentred=uncentred)
    for q in range(5):
        row = [int(v) for v in values[:, q].reshape(-1)]
        want = scalar.normalise_token(row, 21, 9, 1, 30, not uncentred)
        got = [b.core.accumulator.data[f["output"] + p * f["output_stride"] + q] for p in range(2)]
        assert np.concatenate(got).tolist() == want
    assert cost.done == timing.normalise_tokens(CONFIG, 5, 2) == 5 * 2 + 2 + 4 + 63


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (dict(tokens=0), "size of 0"),
        (dict(count=0), "count of 0"),
        (dict(epsilon=0), "epsilon of 0"),
        (dict(shift=23), "shift of 23, outside 24..54"),
        (dict(shift=55), "shift of 55, outside 24..54"),
        (dict(count=20), "values beyond its 20 channels"),
        (dict(stat_shift=3), "sum of squares beyond 63 bits"),
        (dict(stat_shift=1), "sum of squares beyond 63 bits"),
    ],
)
def test_what_normalise_tokens_does_not_take(change, why):
    b, f = Bench(), TOKEN | dict(stat_shift=4)
    for p, lanes in ((0, N), (1, 5)):
        b.core.accumulator.data[3 + 7 * p : 8 + 7 * p, :lanes] = -(1 << 31)
    b.execute("NORMALISE_TOKENS", **f)
    with pytest.raises(Fault, match=why):
        b.execute("NORMALISE_TOKENS", **f | change)


def test_constants(rng):
    """Two parts, each with padding, in groups that straddle the parts."""
    b, images = Bench(), 2
    groups, count = 3, 40
    d = dict(images=images, planes=3, parts=2, groups=groups, count=count, epsilon=17,
             gain_shift=20, mean_shift=9, planes_0=2, planes_1=1, channels_0=20,
             channels_1=10)  # fmt: skip
    b.core.parameter.data[60] = pack_descriptor(NORM_RECORD, d)
    b.core.parameter.data[64:70] = rng.integers(-(1 << 20), 1 << 20, (6, N))
    gain, offset = b.core.parameter.data[64:67], b.core.parameter.data[67:70]
    y = rng.integers(-50, 50, (3, images, 4, N))
    sums = np.stack([y.sum(2), (y * y).sum(2)], 2)
    b.core.parameter.data[5 : 5 + 8] = sums[:2].reshape(-1, N)
    b.core.parameter.data[40 : 40 + 4] = sums[2:].reshape(-1, N)
    cost = b.execute("CONSTANTS", record=60, gain=64, offset=67, sums_0=5, sums_1=40, constants=100)
    got = b.core.parameter.data[100:112].reshape(3, images, 2, N)
    valid = [divmod(c, N) for c in range(20)] + [(2, c) for c in range(10)]
    for i in range(images):
        for g in range(groups):
            members = valid[g * 10 : g * 10 + 10]
            total = sum(int(sums[p, i, 0, c]) for p, c in members)
            squares = sum(int(sums[p, i, 1, c]) for p, c in members)
            mean, r, h = scalar.group_moments(total, squares, count, 17)
            for p, c in members:
                assert tuple(got[p, i, :, c]) == scalar.channel_constants(
                    mean, r, h, int(gain[p, c]), int(offset[p, c]), 20, 9
                )
    assert not got[1, :, :, 4:].any()
    assert not got[2, :, :, 10:].any()
    assert cost.done == timing.constants(CONFIG, images, (20, 10), groups)


def test_softmax_and_its_product(rng):
    b, tokens, keys = Bench(), 5, 21
    scores = rng.integers(-4000, 4000, (2, tokens, N))
    b.core.accumulator.data[3 : 3 + tokens] = scores[0]
    b.core.accumulator.data[10 : 10 + tokens] = scores[1]
    cost = b.execute("SOFTMAX", accumulator=3, stride=7, tokens=tokens, keys=keys, multiplier=900,
                     shift=13, input=50, rows=9)  # fmt: skip
    rows = scores.transpose(1, 0, 2).reshape(tokens, -1)[:, :keys]
    table = scalar.exponential_table()
    reciprocals = []
    for q, row in enumerate(rows):
        codes, reciprocal = scalar.softmax_row([int(s) for s in row], 900, 13, table)
        got = np.concatenate([b.core.input.data[50 + q], b.core.input.data[50 + tokens + q]])
        assert got.tolist() == [*codes, *[0] * 11]
        assert b.core.row.data[9 + q] == reciprocal
        reciprocals.append(reciprocal)
    assert cost.done == timing.softmax(CONFIG, tokens, keys)
    b.core.accumulator.data[100:120] = product = rng.integers(-(1 << 20), 1 << 20, (20, N))
    b.execute("NORMALISE_ROWS", accumulator=100, stride=6, tokens=tokens, planes=2, rows=9,
              multiplier=3000, shift=24, zero=-5, output=200, output_stride=8)  # fmt: skip
    for p in range(2):
        for q in range(tokens):
            assert b.core.accumulator.data[200 + 8 * p + q].tolist() == [
                scalar.attention_code(int(v), reciprocals[q], 3000, 24, -5)
                for v in product[6 * p + q]
            ]
