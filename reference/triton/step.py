"""One executed step on Triton kernels: dense, restoring or mask (`docs/numerics.md`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from signmask.hw.spec.network import CodeSource, Encoding, Linear
from signmask.reference import arithmetic
from signmask.reference.delta_encoder import unencoded_counters
from signmask.reference.encoding import Constants, Moments, NormTables
from signmask.reference.triton.encode import (
    CODES,
    COUNTERS,
    RESTORED,
    UNENCODED,
    Encoded,
    Values,
    encode,
)
from signmask.reference.triton.layout import Operand, level_shape
from signmask.reference.triton.stream import Product, update_stream

if TYPE_CHECKING:
    from signmask.reference.triton.model import TritonOperators, TritonState


class TritonStep:
    """A walk over a network. `last` is the state after the step executed before, None for a dense
    step; what it holds is updated in place and handed on to `next`."""

    def __init__(
        self, operators: TritonOperators, next_state: TritonState, last: TritonState | None
    ) -> None:
        self.operators, self.network = operators, operators.network
        self.next, self.last, self.index = next_state, last, next_state.last
        knobs = self.network.knobs
        self.loop = knobs.loop
        self.masked = last is not None and knobs.dataflow == "mask"
        device = operators.device
        shape = (len(operators.formats), len(COUNTERS))
        self._counts = torch.zeros(shape, dtype=torch.int32, device=device)
        self._saturated = torch.zeros(len(operators.tables), dtype=torch.int32, device=device)
        self.counts = dict(zip(operators.formats, self._counts.unbind(), strict=True))
        self.saturated = dict(zip(operators.tables, self._saturated.split(1), strict=True))
        self.unencoded: set[str] = set()
        self.operands: dict[str, Operand] = {}
        self.products: dict[str, Tensor] = {}
        self.changes: dict[str, Tensor] = {}
        self.factors: dict[str, Tensor] = {}

    def run(self, codes: Tensor) -> TritonState:
        """Execute every operator on int8 input codes (positions, channels)."""
        operators, network = self.operators, self.network
        multiplied = network.multiplied()
        self._source(network.sources[network.input], codes)
        for name in network.order:
            if name in multiplied:
                self.factors[name] = self._codes(network.encodings[name])
            elif name in network.encodings:
                self._encoding(network.encodings[name])
            elif name in network.products:
                product = network.products[name]
                made = operators.products[name](self.factors[product.a], self.factors[product.b])
                self._source(network.sources[product.out], made.to(torch.int8))
            elif name in network.linears:
                self._linear(network.linears[name])
            else:
                attention = network.attentions[name]
                raw = [self.raw(stream) for stream in attention.streams]
                self._source(network.sources[attention.out], operators.attentions[name](*raw))
        for name in network.streams:
            self.raw(name)
        return self.next

    def counters(self) -> dict[str, dict[str, int]]:
        """Counters of a step (`StepResult.counters`)."""
        found = {"streams": dict(zip(self.saturated, self._saturated.tolist(), strict=True))}
        if self.last is None:
            return found
        for name, counts in zip(self.counts, self._counts.tolist(), strict=True):
            if name in self.operands:
                shape = self.network.shape_of(name)
                elements = self.operators.batch * shape.height * shape.width * shape.channels
                if name in self.unencoded:
                    found[name] = unencoded_counters(elements)
                    continue
                counted = dict(zip(COUNTERS, counts, strict=True))
                inlier = elements - counted["zero"] - counted["outlier"]
                found[name] = counted | {"inlier": inlier, "elements": elements}
        return found

    def raw(self, name: str) -> Tensor:
        """y of a stream at this step, (positions, channels), completed on first use."""
        if name in self.next.y:
            return self.next.y[name]
        operators, stream = self.operators, self.network.streams[name]
        table, last, y_last, table_last = operators.tables[name], self.last, None, None
        read: Callable[[str], Tensor] = self.raw
        if self.masked and last is not None:
            read, y_last, table_last = self.change, last.y[name], table[last.last]
        y, change, sums = update_stream(
            [
                Product(
                    self.products[p], operators.multipliers[p], self.network.linears[p].shift
                )
                for p in operators.producers[name]
            ],
            [read(addend) for addend in stream.adds], table[self.index], stream.bits,
            operators.batch, self.saturated[name], stat_shift=operators.stat_shifts.get(name),
            offset=None if self.masked else operators.offsets.get(name),
            table_last=table_last, y_last=y_last,
        )  # fmt: skip
        self.next.y[name] = y
        if change is not None:
            self.changes[name] = change
        if sums is not None:
            self.next.sums[name] = sums
        return y

    def change(self, name: str) -> Tensor:
        """dy of a stream at this mask step."""
        self.raw(name)
        return self.changes[name]

    def _linear(self, linear: Linear) -> None:
        name, last = linear.name, self.last
        operand = self.operands[linear.source]
        kept = self.network.knobs.dataflow == "restore" or name == self.operators.output
        onto = last.accumulators[name] if last is not None and kept else None
        product = self.operators.linears[name](operand, onto)
        self.products[name] = product
        if kept:
            self.next.accumulators[name] = product

    def _source(self, source: CodeSource, codes: Tensor) -> None:
        name = source.name
        self.next.codes[name] = codes
        opened = self.masked and self.loop == "open" and self.last is not None
        base = self.last.codes[name] if opened and self.last is not None else None
        encoded, send = self._prepared(name, source.mode, source.zero, len(codes))
        encode(
            0, Values(codes=codes), encoded, self.operators.formats[name], send,
            self.operators.batch, closed=base is None, base=base,
        )  # fmt: skip

    def _encoding(self, encoding: Encoding) -> None:
        name, operators = encoding.name, self.operators
        positions = operators.batch * encoding.height * encoding.width
        encoded, send = self._prepared(name, encoding.mode, encoding.zero, positions)
        if not (self.masked and encoding.mode == "mask"):
            self._encode_raw(encoding, encoded, send)
            return
        if self.last is None:
            raise RuntimeError("a mask step has no step before it.")
        y_last = self.last.y
        last, now, gain = self._mask_constants(encoding)
        closed = self.loop == "closed"
        used = now if closed else last
        if encoded.segments is None:
            encoded.segments = torch.zeros_like(encoded.operand.narrow)
        at = 0
        for part, stream in enumerate(encoding.streams):
            dy = self.change(stream)
            cut = slice(at, at + dy.shape[1])
            at = cut.stop
            values = Values(
                y=y_last[stream], dy=dy, a=_cut(used.a, cut).int(), b=_cut(used.b, cut),
                gain=None if closed else _cut(gain, cut).int(),
                activation=operators.activations[name],
            )  # fmt: skip
            encode(
                part, values, encoded, operators.formats[name], send, operators.batch,
                closed=closed,
                carry_bits=self.network.knobs.carry_bits if self.loop == "carry" else None,
            )  # fmt: skip
        encoded.last_segments = encoded.segments

    def _encode_raw(self, encoding: Encoding, encoded: Encoded, send: int) -> None:
        """Codes of raw values of this step, sent as they are or as differences."""
        operators, name = self.operators, encoding.name
        token = encoding.token_norm
        raw = [self.raw(stream) for stream in encoding.streams]
        if token is not None:
            raw = [
                arithmetic.normalise_token(
                    raw[0].long(), token.count, token.epsilon, token.stat_shift, token.shift,
                    token.centred,
                ).int()
            ]  # fmt: skip
        norm = operators.encodings[name].norm
        if norm is None:
            used = operators.encodings[name].calibrated(self.index)
        else:
            used = norm.constants(self._moments(norm, encoding, self.next), self.index)
        at = 0
        for part, y in enumerate(raw):
            cut = slice(at, at + y.shape[1])
            at = cut.stop
            values = Values(
                y=y, a=_cut(used.a, cut).int(), b=_cut(used.b, cut),
                activation=operators.activations[name],
            )  # fmt: skip
            encode(part, values, encoded, operators.formats[name], send, operators.batch)

    def _codes(self, encoding: Encoding) -> Tensor:
        """int64 codes (positions, channels) of an encoding that a product reads."""
        columns = self.operators.formats[encoding.name].columns
        positions = self.operators.batch * encoding.height * encoding.width
        encoded = self._fresh(encoding.name, encoding.zero, positions)
        self._encode_raw(encoding, encoded, CODES)
        return encoded.operand.narrow[:, columns.places.to(encoded.operand.narrow.device)].long()

    def _fresh(self, name: str, zero: int, positions: int) -> Encoded:
        shape = (positions, self.operators.formats[name].columns.width)
        device = self.operators.device
        return Encoded(
            Operand(torch.empty(shape, dtype=torch.int8, device=device), zero),
            torch.empty(shape, dtype=torch.int16, device=device), self.counts[name],
        )  # fmt: skip

    def _prepared(self, name: str, mode: str, zero: int, positions: int) -> tuple[Encoded, int]:
        """The state of an operand, ready to take what this step sends, and how that is sent."""
        if self.last is None:
            encoded, send = self._fresh(name, zero, positions), CODES
            if self.loop == "carry" and mode == "mask":
                encoded.residue = torch.zeros_like(encoded.sent)
        else:
            encoded = self.last.encoded[name]
            encoded.counts = self.counts[name]
            send = UNENCODED if mode == "dense" else RESTORED
            if mode == "dense":
                self.unencoded.add(name)
            if encoded.operand.levels is None:
                narrow, columns = encoded.operand.narrow, self.operators.formats[name].columns
                encoded.operand = replace(
                    encoded.operand, pad=0, rest=torch.zeros_like(narrow),
                    levels=narrow.new_empty(tuple(level_shape(positions, columns))),
                )  # fmt: skip
        self.operands[name] = encoded.operand
        self.next.encoded[name] = encoded
        return encoded, send

    def _moments(self, norm: NormTables, encoding: Encoding, state: TritonState) -> Moments:
        sums = torch.cat([state.sums[name] for name in encoding.streams], 1)
        return norm.moments_of(sums[..., 0], sums[..., 1])

    def _mask_constants(self, encoding: Encoding) -> tuple[Constants, Constants, Tensor]:
        """Constants of the last step and for this one, and the gain of dz of an open loop."""
        operator, state, now = self.operators.encodings[encoding.name], self.last, self.index
        if state is None:
            raise RuntimeError("a mask step has no step before it.")
        norm = operator.norm
        if self.network.knobs.norm == "trend" and norm is not None:
            moments = self._moments(norm, encoding, state)
            moved = norm.constants(norm.moved(moments, state.last, now), now)
            before = moved if self.loop == "closed" else norm.constants(moments, state.last)
            return before, moved, moved.a
        before, moved = operator.calibrated(state.last), operator.calibrated(now)
        if norm is None or self.network.knobs.norm == "trend":
            return before, moved, moved.a
        return before, moved, arithmetic.shift_round(moved.a + before.a, 1)


def _cut(constant: Tensor, channels: slice) -> Tensor:
    """A part of constants (..., channels) as (images or 1, channels of the part)."""
    return constant.reshape(-1, constant.shape[-1])[:, channels].contiguous()
