"""Attention of a quantised network on int64 tensors.

An `AttentionOperator` reads its constant keys and values once, checks their shapes and keeps them
on the device. It holds no state between steps (`state.py` does).
"""

from __future__ import annotations

import torch
from torch import Tensor

from signmask.hw.spec import numerics
from signmask.hw.spec.network import Attention, CodeSource
from signmask.reference import arithmetic
from signmask.reference.tensors import TensorReader


class AttentionOperator:
    """softmax(Q K^T) V on int8 codes of raw streams, or of constant keys and values."""

    def __init__(
        self,
        attention: Attention,
        out: CodeSource,
        batch: int,
        read: TensorReader,
        device: torch.device,
    ) -> None:
        if out.channels % attention.heads:
            raise ValueError(
                f"attention '{attention.name}' cannot split {out.channels} channels into "
                f"{attention.heads} heads; compile the network again."
            )
        self.attention = attention
        self.out = out
        self.table = torch.tensor(numerics.exponential_table(), device=device)
        if attention.frames and batch % attention.frames:
            raise ValueError(
                f"attention '{attention.name}' joins {attention.frames} images and the batch is "
                f"{batch}; compile it for a multiple."
            )
        self.constant: tuple[Tensor, Tensor] | None = None
        if attention.keys:
            keys, values = (
                read(attention.keys, -1, -1, out.channels),
                read(attention.values, -1, -1, out.channels),
            )
            if keys.shape != values.shape or len(keys) not in (1, batch):
                raise ValueError(
                    f"attention '{attention.name}' has keys {tuple(keys.shape)} and values "
                    f"{tuple(values.shape)} for {batch} images; compile it for {len(keys)}."
                )
            self.constant = self._split(keys), self._split(values)

    def _split(self, codes: Tensor) -> Tensor:
        """Codes as float64 (batch, heads, tokens, channels of a head)."""
        heads, channels = self.attention.heads, codes.shape[-1]
        split = codes.reshape(len(codes), -1, heads, channels // heads).transpose(1, 2)
        return split.to(torch.float64)  # sums stay far below 2**53

    def _codes(self, y: Tensor, multiplier: int, shift: int) -> Tensor:
        codes = arithmetic.saturate(arithmetic.requantise(y, multiplier, shift), 8)
        return self._split(self._turned(codes))

    def _turned(self, codes: Tensor) -> Tensor:
        """(rows, tokens, channels): the frames of each position of each video as tokens."""
        frames, channels = self.attention.frames, codes.shape[-1]
        if not frames:
            return codes.reshape(len(codes), -1, channels)
        videos = codes.reshape(len(codes) // frames, frames, -1, channels).transpose(1, 2)
        return videos.reshape(-1, frames, channels)

    def __call__(self, q: Tensor, *others: Tensor) -> Tensor:
        """Codes (batch, height, width, channels) of the output from raw values of q and, unless
        they are constant, of k and v."""
        a = self.attention
        queries = self._codes(q, a.q_multiplier, a.q_shift)
        if self.constant is not None:
            keys, values = self.constant
        else:
            k, v = others
            keys = self._codes(k, a.k_multiplier, a.k_shift)
            values = self._codes(v, a.v_multiplier, a.v_shift)
        scores = (queries @ keys.transpose(2, 3)).to(torch.int64)
        weights, reciprocal = arithmetic.softmax_row(
            scores, a.score_multiplier, a.score_shift, self.table
        )
        product = (weights.to(torch.float64) @ values).to(torch.int64)
        codes = arithmetic.attention_code(
            product, reciprocal, a.out_multiplier, a.out_shift, self.out.zero
        )
        joined = codes.transpose(1, 2)
        if a.frames:
            positions = self.out.height * self.out.width
            joined = joined.reshape(-1, positions, a.frames, self.out.channels).transpose(1, 2)
        return joined.reshape(q.shape[0], self.out.height, self.out.width, self.out.channels)
