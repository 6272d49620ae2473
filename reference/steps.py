"""One executed step: dense, restoring or mask (`docs/numerics.md`)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from signmask.hw.spec import numerics
from signmask.hw.spec.network import CodeSource, Encoding
from signmask.reference import arithmetic
from signmask.reference.delta_encoder import unencoded_counters
from signmask.reference.encoding import Constants, EncodingOperator
from signmask.reference.operators import Operators
from signmask.reference.state import State

CODE_BOUND = 128  # largest magnitude of an int8 code
DELTA_BOUND = 256  # of an encoded delta
UNENCODED_BOUND = 1 << 16  # of a code minus x^, both at most 16 bits


class Step(ABC):
    """Shared walk over a network: what raw and mask steps do alike.

    `last` is the state after the step executed before, None for a dense step; `next` is built up
    here and replaces it whole, so a step that raises leaves the model as it was.
    """

    def __init__(self, operators: Operators, index: int, codes: Tensor, last: State | None) -> None:
        self.operators, self.network, self.index = operators, operators.network, index
        self.input_codes = codes
        self.last = last
        self.next = State(index)
        self.counters: dict[str, dict[str, int]] = {
            "streams": dict.fromkeys(operators.network.streams, 0)
        }
        self.operands: dict[str, tuple[Tensor, int, int]] = {}  # values, padding, bound
        self.factors: dict[str, Tensor] = {}  # codes of encodings that a product reads
        self.multiplied = operators.network.multiplied()

    def run(self) -> State:
        """Execute every operator and return the new state."""
        operators, network = self.operators, self.network
        self._source(network.sources[network.input], self.input_codes)
        for name in network.order:
            if name in self.multiplied:
                self.factors[name] = self.codes(network.encodings[name])
            elif name in network.encodings:
                self._encoding(network.encodings[name])
            elif name in network.products:
                product = network.products[name]
                codes = operators.products[name](self.factors[product.a], self.factors[product.b])
                self._source(network.sources[product.out], codes)
            elif name in network.linears:
                linear = network.linears[name]
                self._linear(name, operators.linears[name](*self.operands[linear.source]))
            else:
                attention = network.attentions[name]
                raw = [self._raw(stream) for stream in attention.streams]
                self._source(network.sources[attention.out], operators.attentions[name](*raw))
        for name in network.streams:
            self._raw(name)
        return self.next

    @abstractmethod
    def _source(self, source: CodeSource, codes: Tensor) -> None:
        """Make the operand of a source from its codes."""

    @abstractmethod
    def _encoding(self, encoding: Encoding) -> None:
        """Make the operand of an encoding from its streams."""

    @abstractmethod
    def _linear(self, name: str, product: Tensor) -> None:
        """Take the product of an operator with its operand."""

    @abstractmethod
    def _raw(self, name: str) -> Tensor:
        """Raw values of a stream at this step, completed on first use."""

    def codes(self, encoding: Encoding) -> Tensor:
        """Codes of an encoding from raw values of this step."""
        y = self.concatenated(encoding, self._raw)
        codes = self.operators.encodings[encoding.name].encode(y, self.index).codes
        self.operators.note("codes", encoding.name, codes)
        return codes

    def concatenated(self, encoding: Encoding, read: Callable[[str], Tensor]) -> Tensor:
        """Values of an encoding's streams, (batch, height, width, channels)."""
        shape = (self.operators.batch, encoding.height, encoding.width, -1)
        parts = [read(name).reshape(shape) for name in encoding.streams]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def saturated(self, name: str, total: Tensor) -> Tensor:
        """Saturate values of a stream to its width, counting those that change."""
        value = arithmetic.saturate(total, self.network.streams[name].bits)
        self.counters["streams"][name] += int((value != total).sum())
        return value

    def restore(self, name: str, mode: str, codes: Tensor, base: Tensor, pad: int) -> None:
        """Send codes as differences to `base`, or as they are where the mode is dense."""
        if self.last is None:
            self.operands[name] = (codes, pad, CODE_BOUND)
            self.next.sent[name] = codes
            return
        sent_last = self.last.sent[name]
        if mode == "dense":
            # The consumer works on raw codes: nothing is encoded, so nothing is clipped.
            self.operands[name] = (codes - sent_last, 0, UNENCODED_BOUND)
            self.next.sent[name] = codes
            self.counters[name] = unencoded_counters(codes.numel())
            return
        self.send(name, codes - base, sent_last)

    def send(self, name: str, deltas: Tensor, sent_last: Tensor) -> None:
        """Encode deltas (saturated to 9 bits by the encoder) and accumulate what leaves it."""
        encoder = self.operators.encoders[name]
        sent = encoder(deltas)
        self.operands[name] = (sent.deltas, 0, DELTA_BOUND)
        self.next.sent[name] = sent_last + sent.deltas
        self.counters[name] = encoder.count(sent)
        self.operators.note("dx", name, sent.deltas)


class RawStep(Step):
    """A dense step (`last` is None), or a restoring step: raw values throughout, differences only
    as operands of linear operators."""

    def _source(self, source: CodeSource, codes: Tensor) -> None:
        self.operators.note("codes", source.name, codes)
        self.next.codes[source.name] = codes
        base = codes if self.last is None else self.last.sent[source.name]
        self.restore(source.name, source.mode, codes, base, source.zero)

    def _encoding(self, encoding: Encoding) -> None:
        name = encoding.name
        codes = self.codes(encoding)
        base = codes if self.last is None else self.last.sent[name]
        self.restore(name, encoding.mode, codes, base, encoding.zero)
        self.next.residue[name] = torch.zeros((), dtype=torch.int64, device=codes.device)

    def _linear(self, name: str, product: Tensor) -> None:
        if self.last is not None:
            product = self.last.accumulators[name] + product
        self.next.accumulators[name] = product

    def _raw(self, name: str) -> Tensor:
        known = self.next.y.get(name)
        if known is not None:
            return known
        operators, stream = self.operators, self.network.streams[name]
        shape = (operators.batch, stream.height, stream.width, stream.channels)
        total = operators.tables[name][self.index].expand(shape)
        if name in operators.offsets:
            offset = operators.offsets[name]
            rows = offset.repeat(operators.batch // len(offset), 1, 1)
            total = total + rows.reshape(shape)
        for producer in operators.producers[name]:
            accumulators = self.next.accumulators[producer]
            total = total + operators.linears[producer].requantise(accumulators).reshape(shape)
        for addend in stream.adds:
            total = total + self._raw(addend).reshape(shape)
        y = self.next.y[name] = self.saturated(name, total)
        operators.note("y", name, y)
        return y


class MaskStep(Step):
    """A mask step: streams and activations advance by differences; only attention, the input and
    encodings placed as `restore` or `dense` read raw values of this step."""

    def __init__(self, operators: Operators, index: int, codes: Tensor, last: State) -> None:
        super().__init__(operators, index, codes, last)
        self.state = last
        self.knobs = operators.network.knobs
        self.products: dict[str, Tensor] = {}
        self.changes: dict[str, Tensor] = {}

    def _source(self, source: CodeSource, codes: Tensor) -> None:
        self.operators.note("codes", source.name, codes)
        self.next.codes[source.name] = codes
        last = self.state.codes if self.knobs.loop == "open" else self.state.sent
        self.restore(source.name, source.mode, codes, last[source.name], source.zero)

    def _linear(self, name: str, product: Tensor) -> None:
        self.products[name] = product
        if name == self.operators.output:
            self.next.accumulators[name] = self.state.accumulators[name] + product

    def change(self, name: str) -> Tensor:
        """dy of a stream, completed on first use together with its new y."""
        known = self.changes.get(name)
        if known is not None:
            return known
        operators, stream = self.operators, self.network.streams[name]
        shape = (operators.batch, stream.height, stream.width, stream.channels)
        table = operators.tables[name]
        total = (table[self.index] - table[self.state.last]).expand(shape)
        for producer in operators.producers[name]:
            product = self.products[producer]
            total = total + operators.linears[producer].requantise(product).reshape(shape)
        for addend in stream.adds:
            total = total + self.change(addend).reshape(shape)
        dy = self.changes[name] = self.saturated(name, total)
        self.next.y[name] = self.saturated(name, self.state.y[name] + dy)
        operators.note("dy", name, dy)
        operators.note("y", name, self.next.y[name])
        return dy

    def _raw(self, name: str) -> Tensor:
        self.change(name)
        return self.next.y[name]

    def _encoding(self, encoding: Encoding) -> None:
        name = encoding.name
        operator = self.operators.encodings[name]
        if encoding.mode != "mask":
            codes = self.codes(encoding)
            self.next.residue[name] = self.state.residue[name]
            self.restore(name, encoding.mode, codes, self.state.sent[name], encoding.zero)
            return
        dy = self.concatenated(encoding, self.change)
        y_last = self.concatenated(encoding, self.state.y.__getitem__)
        last, now, gain = self.constants(encoding, operator, y_last)
        closed = self.knobs.loop == "closed"
        sent_last = self.state.sent[name]
        z = operator.pre_activation(y_last, now if closed else last)
        segments = operator.segment(z)
        slope = operator.slope(segments)
        dz = operator.pre_activation_change(dy, now.a if closed else gain)
        residue, carry = self.state.residue[name], 0
        if self.knobs.loop == "carry":
            carry = self.knobs.carry_bits
            exact = arithmetic.masked_delta(dz, slope, encoding.code_shift, residue, carry)
            deltas = arithmetic.shift_round(exact, carry)
            residue = exact - (deltas << carry)
        else:
            deltas = arithmetic.masked_delta(dz, slope, encoding.code_shift, 0, 0)
        if closed:
            codes = operator.code(z, segments, slope)
            correction = arithmetic.saturate(codes - sent_last, numerics.DELTA_BITS)
            deltas = deltas + correction
            self.operators.note("corrections", name, correction)
        self.operators.note("segments", name, segments)
        self.next.residue[name], self.next.segments[name] = residue, segments
        self.send(name, deltas, sent_last)
        previous = self.state.segments.get(name)
        if previous is not None and operator.segments > 1:
            self.counters[name]["segment_changes"] = int((segments != previous).sum())

    def constants(
        self, encoding: Encoding, operator: EncodingOperator, y_last: Tensor
    ) -> tuple[Constants, Constants, Tensor]:
        """Constants of the last step and for this one, and the gain of dz of an open loop."""
        if self.knobs.norm == "trend":
            last, now = operator.trend(y_last, self.state.last, self.index)
            return last, now, now.a
        if self.knobs.norm == "live":
            last = operator.live(y_last, self.state.last)
            now = operator.live(self.concatenated(encoding, self._raw), self.index)
            return last, now, now.a
        last, now = operator.calibrated(self.state.last), operator.calibrated(self.index)
        if operator.norm is None:
            return last, now, now.a
        return last, now, arithmetic.shift_round(now.a + last.a, 1)
