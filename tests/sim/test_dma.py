"""Loads and stores: layout in the scratchpads, bytes and cycles."""

import numpy as np
import pytest

from signmask.hw.spec.isa import Step, Traffic
from signmask.sim.errors import Fault
from tests.sim.programs import Bench


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def cost_of(beats):
    return (beats, beats + 10)


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
    fields = dict(plane_stride=stride, tokens=tokens, planes=planes, weight=1)
    assert b.execute("LOAD_KEYS", **fields, transpose=0) == cost_of(planes * tokens)
    w = b.core.weight.data
    for token in range(-(-tokens // columns) * columns):
        for p in range(planes):
            want = codes[p, token] if token < tokens else np.zeros(16)
            assert np.array_equal(w[1 + token // columns * planes + p, token % columns], want)
    w[:] = 99
    cost = b.execute("LOAD_KEYS", **fields, transpose=1)
    assert cost == cost_of(planes * tokens * max(1, 16 // columns))
    kp = -(-tokens // 16)
    for channel in range(planes * 16):
        for token in range(kp * 16):
            want = codes[channel // 16, token, channel % 16] if token < tokens else 0
            at = 1 + channel // columns * kp + token // 16
            assert w[at, channel % columns, token % 16] == want
    assert b.counters.traffic["codes"] == 2 * planes * tokens * 16


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
    assert b.execute("STORE_DELTAS", **area, accumulator=20) == cost_of(3 + 1)
    cost = b.execute("LOAD_DELTAS", **area, buffer=40, kind=Traffic.SPILLS)
    assert cost == cost_of(3 + 1)
    assert np.array_equal(b.core.accumulator.data[40:45], values)
    b.execute("LOAD_DELTAS", **area, buffer=2, to_mask=1, kind=Traffic.CORRECTIONS)
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
    assert b.execute("LOAD_MASK", words=2, bits=0, mask=5) == cost_of(0)
    assert not b.core.segments.data[5:7].any()
    assert (b.counters.traffic["masks"], b.counters.traffic["corrections"]) == (6, 6)
