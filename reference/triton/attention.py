"""Attention on raw int8 codes: scores, softmax and product in one kernel (`docs/numerics.md`)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from signmask.hw.spec.network import Attention
from signmask.reference.attention import AttentionOperator
from signmask.reference.triton import numerics

QUERIES, KEYS = 64, 64  # of a block


@triton.jit(do_not_specialize=["multiplier", "shift"])
def codes_kernel(y, codes, elements, multiplier, shift, SIZE: tl.constexpr):
    """int8 codes of raw values (the engine's READ)."""
    place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    value = tl.load(y + place, mask=place < elements, other=0)
    code = numerics.saturate(numerics.requantise(value, multiplier, shift), 8)
    tl.store(codes + place, code.to(tl.int8), mask=place < elements)


@triton.jit
def token_places(row, token, tokens, positions, FRAMES: tl.constexpr):
    """Positions of the tokens of a row: those of an image, or one position in all frames."""
    if FRAMES:
        return (row // positions) * tokens * positions + token * positions + row % positions
    else:
        return row * tokens + token


@triton.jit
def scores_of(
    query, k, head, first, row, keys, channels, positions, WIDTH: tl.constexpr,
    DEPTH: tl.constexpr, KEYS: tl.constexpr, FRAMES: tl.constexpr,
):  # fmt: skip
    """Scores (queries, KEYS) with a block of keys; those of keys that do not exist are lowest."""
    key = first + tl.arange(0, KEYS)
    depth = tl.arange(0, DEPTH)
    place = token_places(row, key, keys, positions, FRAMES).to(tl.int64)[None, :] * channels
    place += head * WIDTH + depth[:, None]
    known = (key < keys)[None, :] & (depth < WIDTH)[:, None]
    scores = tl.dot(query, tl.load(k + place, mask=known, other=0), out_dtype=tl.int32)
    return tl.where((key < keys)[None, :], scores, -(1 << 31))


@triton.jit(
    do_not_specialize=["score_multiplier", "score_shift", "out_multiplier", "out_shift", "zero"]
)
def attention_kernel(
    q, k, v, table, out, queries, keys, key_rows, channels, positions, heads,
    score_multiplier, score_shift, out_multiplier, out_shift, zero,
    WIDTH: tl.constexpr, DEPTH: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr,
    FRAMES: tl.constexpr,
):  # fmt: skip
    """QUERIES queries of one head of one row of tokens; two passes over the keys: the largest score
    comes first, because codes of the softmax are relative to it."""
    row = tl.program_id(1) // heads
    head = tl.program_id(1) % heads
    token = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    depth = tl.arange(0, DEPTH)
    place = token_places(row, token, queries, positions, FRAMES).to(tl.int64)[:, None] * channels
    place += head * WIDTH + depth[None, :]
    known = (token < queries)[:, None] & (depth < WIDTH)[None, :]
    query = tl.load(q + place, mask=known, other=0)
    key_row = row % key_rows
    top = tl.full((QUERIES,), -(1 << 31), tl.int32)
    for first in range(0, keys, KEYS):
        scores = scores_of(
            query, k, head, first, key_row, keys, channels, positions, WIDTH, DEPTH, KEYS, FRAMES
        )
        top = tl.maximum(top, tl.max(scores, 1))
    total = tl.zeros((QUERIES,), tl.int32)
    product = tl.zeros((QUERIES, DEPTH), tl.int32)
    for first in range(0, keys, KEYS):
        scores = scores_of(
            query, k, head, first, key_row, keys, channels, positions, WIDTH, DEPTH, KEYS, FRAMES
        )
        key = first + tl.arange(0, KEYS)
        entry = numerics.softmax_entry(top[:, None], scores, score_multiplier, score_shift)
        weight = tl.load(table + entry, mask=(key < keys)[None, :], other=0)
        total += tl.sum(weight.to(tl.int32), 1)
        read = token_places(key_row, key, keys, positions, FRAMES).to(tl.int64)[:, None] * channels
        read += head * WIDTH + depth[None, :]
        inside = (key < keys)[:, None] & (depth < WIDTH)[None, :]
        value = tl.load(v + read, mask=inside, other=0)
        product = tl.dot(weight, value, product, out_dtype=tl.int32)
    code = numerics.attention_code(product, total[:, None], out_multiplier, out_shift, zero)
    tl.store(out + place, code.to(tl.int8), mask=known)


def warps_for(depth: int) -> int:
    """Warps that hold scores and products of a block in their registers."""
    return 4 if depth <= 64 else 8


class TritonAttention:
    """One attention on a device. Constant keys and values are those of the golden operator."""

    def __init__(self, operator: AttentionOperator, positions: int) -> None:
        """positions: of one image."""
        self.attention: Attention = operator.attention
        self.zero, self.positions = operator.out.zero, positions
        self.table = operator.table.to(torch.int8)
        self.constant: tuple[Tensor, Tensor] | None = None
        if operator.constant is not None:
            keys, values = (
                split.transpose(1, 2).flatten(2).to(torch.int8).contiguous()
                for split in operator.constant
            )
            self.constant = keys, values

    def __call__(self, *raw: Tensor) -> Tensor:
        """int8 codes (positions, channels) of the output from raw values of q and, unless they are
        constant, of k and v, each (positions, channels)."""
        a = self.attention
        queries = read_codes(raw[0], a.q_multiplier, a.q_shift)
        images = len(queries) // self.positions
        tokens = a.frames or self.positions
        rows = len(queries) // tokens
        if self.constant is not None:
            keys, values = self.constant
            many, key_rows = keys.shape[1], len(keys)
        else:
            keys = read_codes(raw[1], a.k_multiplier, a.k_shift)
            values = read_codes(raw[2], a.v_multiplier, a.v_shift)
            many, key_rows = a.frames or len(keys) // images, rows
        channels = queries.shape[1]
        width = channels // a.heads
        depth = max(32, triton.next_power_of_2(width))
        out = torch.empty_like(queries)
        attention_kernel[(triton.cdiv(tokens, QUERIES), rows * a.heads)](
            queries, keys, values, self.table, out, tokens, many, key_rows, channels,
            self.positions, a.heads, a.score_multiplier, a.score_shift, a.out_multiplier,
            a.out_shift, self.zero, WIDTH=width, DEPTH=depth, QUERIES=QUERIES, KEYS=KEYS,
            FRAMES=bool(a.frames), num_warps=warps_for(depth),
        )  # fmt: skip
        return out


def read_codes(y: Tensor, multiplier: int, shift: int) -> Tensor:
    """int8 codes of raw values, of the same shape."""
    codes = torch.empty(y.shape, dtype=torch.int8, device=y.device)
    codes_kernel[(triton.cdiv(y.numel(), 1024),)](y, codes, y.numel(), multiplier, shift, SIZE=1024)
    return codes
