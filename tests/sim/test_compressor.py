"""Memory formats: round trips, and the layout of docs/isa.md byte by byte."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from signmask.sim import compressor
from signmask.sim.errors import Fault


@st.composite
def words(draw, elements):
    group, count = draw(st.sampled_from([8, 16, 64])), draw(st.integers(1, 3))
    values = draw(st.lists(elements, min_size=group * count, max_size=group * count))
    return np.array(values, np.int64).reshape(count, group)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [*range(1, 20), 31])
def test_pack_round_trip(bits, signed):
    low, high = (-(1 << bits - 1), 1 << bits - 1) if signed else (0, 1 << bits)
    for group in (8, 16, 64):
        values = np.random.default_rng(bits).integers(low, high, (9, group))
        values[0], values[1] = low, high - 1
        packed = compressor.pack(values, bits)
        assert packed.shape == (9, group * bits // 8)
        assert np.array_equal(compressor.unpack(packed, group, bits, signed), values)


@given(words(st.integers(-4, 3)), st.sampled_from([3, 5, 7, 8, 9, 12]))
def test_pack_puts_lane_0_in_the_lowest_bits(values, bits):
    for row, packed in zip(values, compressor.pack(values, bits), strict=True):
        whole = sum((int(v) & (1 << bits) - 1) << i * bits for i, v in enumerate(row))
        assert packed.tobytes() == whole.to_bytes(len(row) * bits // 8, "little")


def test_fields_of_no_bits_take_no_bytes():
    assert compressor.pack(np.ones((2, 16)), 0).shape == (2, 0)
    empty = np.zeros(0, np.uint8).reshape(2, -1)
    assert not compressor.unpack(empty, 16, 0, signed=False).any()


@given(words(st.one_of(st.integers(-8, 8), st.integers(-(1 << 15), (1 << 15) - 1))),
       st.sampled_from([3, 4, 7, 10]), st.sampled_from([2, 4]))  # fmt: skip
def test_compressed_round_trip(values, bits, wide):
    area, outliers = compressor.compress(values, bits, wide)
    count, group = values.shape
    assert area.size == compressor.area_bytes(count, group, bits) == count * group * (bits + 1) // 8
    inliers, outlier = compressor.decompress_area(area, group, bits)
    back = inliers.astype(np.int64)
    back[outlier] = outliers.view(f"<i{wide}")
    assert np.array_equal(back, values)
    assert outliers.size == wide * np.count_nonzero((values < -(1 << bits - 1))
                                                    | (values >= 1 << bits - 1))  # fmt: skip


def test_layout_of_a_compressed_word():
    values = np.array([[1, -1, 300, 0, 0, -5, 3, -4]])
    area, outliers = compressor.compress(values, 3, 2)
    inliers = 1 | 7 << 3 | 3 << 18 | 4 << 21  # slots of outliers (lanes 2 and 5) are 0
    assert area.tobytes() == bytes([0b00100100]) + inliers.to_bytes(3, "little")
    assert outliers.tobytes() == np.array([300, -5], "<i2").tobytes()


def test_too_wide_a_value_is_refused():
    with pytest.raises(Fault, match="exceeds 2 bytes"):
        compressor.compress(np.full((1, 8), 1 << 15), 3, 2)
