"""Compressor, decompressor and bit packing of the memory formats (`docs/isa.md`)."""

from __future__ import annotations

import numpy as np

from signmask.sim.errors import Fault

_FAST_BITS = 16  # widest field that the 64-bit path packs


def packed_bytes(words: int, group: int, bits: int) -> int:
    """Bytes of `words` words of `group` fields of `bits` bits."""
    return words * group * bits // 8


def pack(values: np.ndarray, bits: int) -> np.ndarray:
    """uint8 (words, group * bits / 8): the low `bits` bits of (words, group) integers, lane 0
    in the lowest bits; group is a multiple of 8."""
    words, group = values.shape
    if bits == 0:
        return np.zeros((words, 0), np.uint8)
    if bits > _FAST_BITS:
        fields = values.astype("<i8").view(np.uint8).reshape(words, group, 8)
        spread = np.unpackbits(fields, axis=-1, bitorder="little")[..., :bits]
        return np.packbits(spread.reshape(words, -1), axis=-1, bitorder="little")
    octets = (values.astype(np.int64) & ((1 << bits) - 1)).view(np.uint64).reshape(words, -1, 8)
    low = octets[..., 0].copy()
    for lane in range(1, 4):
        low |= octets[..., lane] << np.uint64(bits * lane)
    high = octets[..., 4].copy()
    for lane in range(1, 4):
        high |= octets[..., 4 + lane] << np.uint64(bits * lane)
    # Four fields fill up to 64 bits; eight fill `bits` bytes.
    if bits == _FAST_BITS:
        both = np.stack([low, high], -1)
    elif bits > 8:
        shift = np.uint64(4 * bits)
        both = np.stack([low | high << shift, high >> (np.uint64(64) - shift)], -1)
    else:
        both = (low | high << np.uint64(4 * bits))[..., None]
    octet_bytes = both.astype("<u8", copy=False).view(np.uint8)
    return np.ascontiguousarray(octet_bytes[..., :bits]).reshape(words, -1)


def unpack(data: np.ndarray, group: int, bits: int, signed: bool) -> np.ndarray:
    """Inverse of `pack` on uint8 (words, group * bits / 8): int16 (words, group), int64 where
    a field is wider than 15 bits."""
    words = len(data)
    if bits == 0:
        return np.zeros((words, group), np.int16)
    if bits >= _FAST_BITS:
        spread = np.unpackbits(data, axis=-1, bitorder="little").reshape(words, group, bits)
        fields = np.packbits(spread, axis=-1, bitorder="little")
        wide = np.zeros((words, group, 8), np.uint8)
        wide[..., : fields.shape[-1]] = fields
        values = wide.view("<i8")[..., 0]
    else:
        octets = np.zeros((words, group // 8, 16), np.uint8)
        octets[..., :bits] = data.reshape(words, group // 8, bits)
        pair = octets.view("<u8")
        low = pair[..., 0]
        if bits > 8:
            shift = np.uint64(4 * bits)
            high = low >> shift | pair[..., 1] << (np.uint64(64) - shift)
        else:
            high = low >> np.uint64(4 * bits)
        values = np.empty((words, group // 8, 8), np.int16)
        mask = np.uint64((1 << bits) - 1)
        for lane in range(4):
            values[..., lane] = low >> np.uint64(bits * lane) & mask
            values[..., 4 + lane] = high >> np.uint64(bits * lane) & mask
        values = values.reshape(words, group)
    if signed:
        sign = 1 << (bits - 1)
        values ^= sign
        values -= sign
    return values


def compress(
    values: np.ndarray, inlier_bits: int, wide_bytes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bytes (uint8, 1-D) of the two areas of (words, group) integers: bitmaps with inliers, and
    outliers. Raises Fault for a value wider than wide_bytes."""
    low, high = -(1 << (inlier_bits - 1)), (1 << (inlier_bits - 1)) - 1
    outlier = (values < low) | (values > high)
    bitmap = np.packbits(outlier, axis=-1, bitorder="little")
    if not outlier.any():
        area = np.concatenate([bitmap, pack(values, inlier_bits)], axis=1)
        return area.reshape(-1), np.zeros(0, np.uint8)
    wide = values[outlier]
    limit = 1 << (8 * wide_bytes - 1)
    if wide.min() < -limit or wide.max() >= limit:
        raise Fault(f"compresses a value that exceeds {wide_bytes} bytes")
    inliers = np.where(outlier, 0, values)
    area = np.concatenate([bitmap, pack(inliers, inlier_bits)], axis=1)
    return area.reshape(-1), wide.astype(f"<i{wide_bytes}").view(np.uint8)


def area_bytes(words: int, group: int, inlier_bits: int) -> int:
    """Bytes of the first area of a compressed tensor."""
    return packed_bytes(words, group, 1 + inlier_bits)


def decompress_area(
    area: np.ndarray, group: int, inlier_bits: int
) -> tuple[np.ndarray, np.ndarray]:
    """(inliers int (words, group) with 0 for outliers, outlier bool (words, group))."""
    data = area.reshape(-1, group * (1 + inlier_bits) // 8)
    bitmap = np.ascontiguousarray(data[:, : group // 8])
    outlier = np.unpackbits(bitmap, axis=-1, bitorder="little").view(bool)
    return unpack(data[:, group // 8 :], group, inlier_bits, signed=True), outlier
