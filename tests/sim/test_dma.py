"""Loads and stores: layout in the scratchpads, bytes and cycles."""

import numpy as np
import pytest

from signmask.hw.spec.isa import Step, Traffic
from signmask.sim.errors import Fault
from tests.sim.programs import Bench


@pytest.fixture
def rng():
    return np.random.default_rng(0)


LATENCY = 10


def cost_of(landing):
    """A load: no less than 3 cycles apart; 3 before the request, 2 behind the last beat."""
    return (max(3, landing), 3 + LATENCY + landing + 2)


def store_cost(*cycles):
    """A store: its areas' last beats leave 7 cycles and `cycles` after it began them."""
    occupied = 1 + sum(7 + c for c in cycles)
    return (occupied, occupied + LATENCY + 1)


def test_weights(rng):
    b, words = Bench(), rng.integers(-128, 128, (3, 8, 16))
    b.put(64, words, "i1")
    assert b.execute("LOAD_WEIGHTS", address=64, words=3, weight=7) == cost_of(24)
    assert np.array_equal(b.core.weight.data[7:10], words)
    assert b.counters.traffic["weights"] == 384


@pytest.mark.parametrize("columns", [8, 16, 32])
@pytest.mark.parametrize("tokens", [5, 16, 33])
def test_keys(rng, columns, tokens):
    planes, stride = 2, 33 * 16 + 32
    b, codes = Bench(columns=columns), rng.integers(-128, 128, (planes, tokens, 16))
    for p in range(planes):
        b.put(p * stride, codes[p], "i1")
    fields = dict(plane_stride=stride, token_stride=16, tokens=tokens, planes=planes, weight=1)
    first = max(3, tokens)
    assert b.execute("LOAD_KEYS", **fields, transpose=0) == (2 * first, first + 15 + tokens)
    w = b.core.weight.data
    for token in range(-(-tokens // columns) * columns):
        for p in range(planes):
            want = codes[p, token] if token < tokens else np.zeros(16)
            assert np.array_equal(w[1 + token // columns * planes + p, token % columns], want)
    w[:] = 99
    cost = b.execute("LOAD_KEYS", **fields, transpose=1)
    takes = tokens * max(1, 16 // columns)
    assert cost == (2 * max(3, takes), max(3, takes) + 15 + takes)
    kp = -(-tokens // 16)
    for channel in range(planes * 16):
        for token in range(kp * 16):
            want = codes[channel // 16, token, channel % 16] if token < tokens else 0
            at = 1 + channel // columns * kp + token // 16
            assert w[at, channel % columns, token % 16] == want
    assert b.counters.traffic["codes"] == 2 * planes * tokens * 16


@pytest.mark.parametrize("columns", [8, 16, 32])
@pytest.mark.parametrize("transpose", [0, 1])
@pytest.mark.parametrize("stride", [0, 23, 80])
def test_keys_whose_tokens_lie_apart(rng, columns, transpose, stride):
    planes, tokens, apart = 3, 21, 2048
    b, codes = Bench(columns=columns), rng.integers(-128, 128, (planes, apart))
    b.put(0, codes, "i1")
    fields = dict(tokens=tokens, planes=planes, weight=1, transpose=transpose)
    cost = b.execute("LOAD_KEYS", address=5, plane_stride=apart, token_stride=stride, **fields)
    # The last token's 16 bytes come in 2 beats, at any of these strides.
    assert cost == (3 * planes * tokens, 3 * (planes * tokens - 1) + 15 + 2)
    assert b.counters.traffic["codes"] == planes * tokens * 16
    scattered = b.core.weight.data.copy()
    at = 5 + stride * np.arange(tokens)[:, None] + np.arange(16)
    b.core.weight.data[:] = 99
    b.put(0, codes[:, at].reshape(planes, -1), "i1")
    b.execute("LOAD_KEYS", plane_stride=tokens * 16, token_stride=16, **fields)
    words = -(-planes * 16 // columns) * 2 if transpose else planes * -(-tokens // columns)
    assert np.array_equal(b.core.weight.data[1 : 1 + words], scattered[1 : 1 + words])
    assert (b.core.weight.data[1 + words] == 99).all() and scattered[1 : 1 + words].any()


def test_codes_and_raw(rng):
    b, codes = Bench(), rng.integers(-128, 128, (3, 16))
    b.put(16, codes, "i1")
    assert b.execute("LOAD_CODES", address=16, words=3, input=4, kind=Traffic.CODES) == cost_of(3)
    assert np.array_equal(b.core.input.data[4:7], codes)
    for entry in (1, 2, 4):
        values = rng.integers(-(1 << 8 * entry - 1), 1 << 8 * entry - 1, (3, 16))
        b.put(1024, values, f"<i{entry}")
        cost = b.execute("LOAD_RAW", address=1024, words=3, entry_bytes=entry, accumulator=9,
                         kind=Traffic.SPILLS)  # fmt: skip
        assert cost == cost_of(3 * entry)
        assert np.array_equal(b.core.accumulator.data[9:12], values)
        b.execute("STORE_RAW", address=2048, words=3, entry_bytes=entry, accumulator=9,
                  kind=Traffic.RAW)  # fmt: skip
        assert np.array_equal(b.get(2048, 48, f"<i{entry}"), values.reshape(-1))
    assert b.counters.traffic["spills"] == b.counters.traffic["raw"] == 48 * 7


@pytest.mark.parametrize(("step", "row"), [(Step.NONE, 0), (Step.NOW, 3), (Step.LAST, 1)])
def test_parameters_of_a_step(rng, step, row):
    b, table = Bench(), rng.integers(-(1 << 31), 1 << 31, (5, 2, 16))
    b.put(0, table, "<i4")
    b.core.now, b.core.last = 3, 1
    fields = dict(words=2, entry_bytes=4, parameter=6)
    assert b.execute("LOAD_PARAMETERS", stride=128, step=step, **fields) == cost_of(8)
    assert np.array_equal(b.core.parameter.data[6:8], table[row])
    b.execute("STORE_PARAMETERS", address=4096, words=2, entry_bytes=8, parameter=6)
    assert np.array_equal(b.get(4096, 32, "<i8"), table[row].reshape(-1))
    assert b.counters.traffic["parameters"] == 128 + 256


def test_a_parameter_has_48_bits():
    b = Bench()
    b.put(0, np.full(16, 1 << 47), "<i8")
    with pytest.raises(Fault, match="48 bits"):
        b.execute("LOAD_PARAMETERS", words=1, entry_bytes=8)


def test_deltas(rng):
    b, values = Bench(), rng.integers(-4, 4, (5, 16))
    values[0, 3], values[4, 0] = 300, -5
    b.core.accumulator.data[20:25] = values
    area = dict(address=128, list=4096, words=5, inlier_bits=3, wide_bytes=2)
    # 5 words of 16 * 4 bits are 40 bytes, 3 beats; 2 outliers are 4 bytes, 1 beat.
    assert b.execute("STORE_DELTAS", **area, accumulator=20) == store_cost(4, 1)
    load = area | {"kind": Traffic.SPILLS}
    cost = b.execute("LOAD_DELTAS", **load, buffer=40)
    assert cost == cost_of(5)
    assert np.array_equal(b.core.accumulator.data[40:45], np.where(abs(values) > 4, 0, values))
    del load["address"], load["inlier_bits"]
    cost = b.execute("LOAD_OUTLIERS", **load, buffer=40)
    # The last bitmap is taken in cycle 18 and counted 3 later; 2 words on 1 beat.
    assert cost == (20 + 3, 20 + 3 + LATENCY + 2 + 2)
    assert np.array_equal(b.core.accumulator.data[40:45], values)
    load = area | {"kind": Traffic.CORRECTIONS, "to_mask": 1, "buffer": 2}
    b.execute("LOAD_DELTAS", **load)
    del load["address"], load["inlier_bits"]
    b.execute("LOAD_OUTLIERS", **load)
    assert np.array_equal(b.core.corrections.data[2:7], values)
    for kind in ("deltas", "spills", "corrections"):
        assert b.counters.traffic[kind] == 44


def test_masks(rng):
    b = Bench()
    b.put(0, np.full(6, 0b10100100), "u1")
    assert b.execute("LOAD_MASK", words=1, bits=3, mask=5) == cost_of(1)
    whole = int.from_bytes(bytes([0b10100100] * 6), "little")
    segments = [whole >> 3 * lane & 7 for lane in range(16)]
    assert b.core.segments.data[5].tolist() == segments
    b.execute("LOAD_MASK", words=1, bits=3, mask=5, residue=1)
    assert b.core.corrections.data[5].tolist() == [s - 8 * (s > 3) for s in segments]
    # Nothing comes from memory: done in turn, two words behind the loads before.
    landed = 3 + LATENCY + 1
    cost = b.execute("LOAD_MASK", words=2, bits=0, mask=5)
    assert cost == (3, landed + 2 + 2)
    assert not b.core.segments.data[5:7].any()
    assert (b.counters.traffic["masks"], b.counters.traffic["corrections"]) == (6, 6)


def test_bitmaps_wait_for_their_outliers():
    b = Bench(bitmap_words=8)
    area = dict(words=5, inlier_bits=3, wide_bytes=2)
    with pytest.raises(Fault, match="finds no bitmaps of 5 words"):
        b.execute("LOAD_OUTLIERS", words=5, wide_bytes=2)
    b.execute("LOAD_DELTAS", **area)
    with pytest.raises(Fault, match="bitmaps of 10 words of 8"):
        b.execute("LOAD_DELTAS", **area)
    with pytest.raises(Fault, match="finds no bitmaps of 4 words"):
        b.execute("LOAD_OUTLIERS", words=4, wide_bytes=2)


@pytest.mark.parametrize("name", ["LOAD_CODES", "LOAD_RAW", "LOAD_KEYS", "LOAD_MASK", "STORE_RAW"])
def test_nothing_to_move(name):
    entry = {"entry_bytes": 2} if name.endswith("RAW") else {}
    with pytest.raises(Fault, match="moves no words"):
        Bench().execute(name, **entry)


def test_more_words_with_outliers_than_are_remembered():
    b = Bench(bitmap_words=2)
    b.core.accumulator.data[:6, 0] = [9, 0, 9, 0, 9, 0]
    fields = dict(list=4096, words=6, inlier_bits=3, wide_bytes=2, accumulator=0)
    # 48 bytes are 3 beats, the last behind the sixth word; then words 0, 2, and 3, 4, 5.
    assert b.execute("STORE_DELTAS", **fields) == store_cost(5, 4)
    assert b.get(4096, 3, "<i2").tolist() == [9, 9, 9]
