"""Emission of a whole step: plan, order of boundaries, residency."""

from __future__ import annotations

from dataclasses import dataclass

from signmask.compiler.backend.attention import AttentionEmitter
from signmask.compiler.backend.builder import PhaseCode
from signmask.compiler.backend.context import Context, Phase
from signmask.compiler.backend.encodings import EncodingEmitter, emit_prepare, emit_source
from signmask.compiler.backend.layout import Layout
from signmask.compiler.backend.products import emit_product
from signmask.compiler.backend.streams import (
    Follower,
    StreamEmitter,
    emit_output,
    emit_update_stream,
)
from signmask.compiler.errors import CompileError
from signmask.hw.spec.isa import Traffic
from signmask.hw.spec.network import Encoding, Linear, Network, Stream

LOOKAHEAD = 4  # stages that the near-data engine prepares boundaries ahead of their use


@dataclass(frozen=True)
class Stage:
    """One entry of the plan: a stream to produce, an attention or product to run, or the
    output."""

    kind: str  # "stream", "attention", "product" or "output"
    name: str


def plan(network: Network) -> list[Stage]:
    """Stages in execution order; a stream comes when its last Linear is reached, and a stream
    without a Linear as soon as a stage needs it."""
    stages: list[Stage] = []
    done: set[str] = set()
    pending = {
        name: [item.name for item in network.linears.values() if item.out == name]
        for name in network.streams
    }

    def produce(name: str) -> None:
        if name not in done:
            done.add(name)
            for other in network.streams[name].adds:
                produce(other)
            stages.append(Stage("stream", name))

    for name in network.order:
        if name in network.encodings:
            for stream in network.encodings[name].streams:
                if not pending[stream]:
                    produce(stream)
        elif name in network.attentions:
            stages.append(Stage("attention", name))
        elif name in network.products:
            stages.append(Stage("product", name))
        elif name in network.linears:
            out = network.linears[name].out
            if not out:
                stages.append(Stage("output", name))
                continue
            pending[out].remove(name)
            if not pending[out]:
                produce(out)
    return stages


class PhaseEmitter:
    """Emits the instructions of one phase."""

    def __init__(self, layout: Layout, phase: Phase, must_store: frozenset[str]) -> None:
        self.context = Context(layout, phase, must_store)
        self.network = layout.network
        self.stages = plan(self.network)
        self.written: dict[str, list[Linear]] = {name: [] for name in ("", *self.network.streams)}
        for linear in self.network.linears.values():
            self.written[linear.out].append(linear)
        self.consumers = self._consumers()
        self.context.next_use = self._uses()
        self.encoded: set[str] = set()
        self.prepared: set[str] = set()
        self.updated: set[str] = set()
        self.sum_uses = {
            name: sum(name in e.streams for e in self.network.encodings.values() if e.norm)
            for name in self.network.streams
        }
        self.reserve = max(layout.operand_words(name) for name in self._sources())
        self.attended = {s for a in self.network.attentions.values() for s in a.streams}
        self.readers: dict[str, list[Encoding]] = {name: [] for name in self.network.streams}
        self.in_order = self._encodings_in_order()
        for encoding in self.in_order:
            for name in encoding.streams:
                self.readers[name].append(encoding)

    def _sources(self) -> list[str]:
        return [*self.network.encodings, *self.network.sources]

    def _linears(self, stage: Stage) -> list[Linear]:
        if stage.kind == "stream":
            return self.written[stage.name]
        return [self.network.linears[stage.name]] if stage.kind == "output" else []

    def _consumers(self) -> dict[str, list[int]]:
        """Stages that use each operand, or the codes of each factor."""
        consumers: dict[str, list[int]] = {name: [] for name in self._sources()}
        for i, stage in enumerate(self.stages):
            used = {linear.source for linear in self._linears(stage)}
            if stage.kind == "product":
                product = self.network.products[stage.name]
                used = {product.a, product.b}
            for source in used:
                consumers[source].append(i)
        return consumers

    def _uses(self) -> dict[str, list[int]]:
        """Stages that read each stream, as an addend, for an encoding, or for attention: its y, in
        a mask step its dy."""
        uses: dict[str, list[int]] = {name: [] for name in self.network.streams}
        for i, stage in enumerate(self.stages):
            read: tuple[str, ...] = ()
            if stage.kind == "stream":
                read = self.network.streams[stage.name].adds
            elif stage.kind == "attention" and not self.context.masked:
                read = self.network.attentions[stage.name].streams
            for name in read:
                uses[name].append(i)
        for encoding in self.network.encodings.values():
            if self.consumers[encoding.name] and not self._restored(encoding):
                for name in encoding.streams:
                    uses[name].append(self.consumers[encoding.name][0])
        return {name: sorted(stages) for name, stages in uses.items()}

    def _restored(self, encoding: Encoding) -> bool:
        """Whether a mask step encodes it from raw values, which the engine keeps."""
        return self.context.masked and encoding.mode != "mask"

    def _layer_of(self, stage: Stage) -> str:
        """The layer that a stage counts for: its last Linear, attention or product."""
        linears = self._linears(stage)
        return linears[-1].name if linears else stage.name

    def _layer_after(self, encoding: Encoding) -> str:
        """The layer that an encoding counts for: the first that reads it."""
        stage = self.stages[self.consumers[encoding.name][0]]
        readers = [item.name for item in self._linears(stage) if item.source == encoding.name]
        return readers[0] if readers else self._layer_of(stage)

    def emit(self) -> PhaseCode:
        """All instructions of the phase, tokens included; raises CompileError if a scratchpad is
        too small."""
        context = self.context
        with context.builder.layer(self.network.input):
            self._prepare(LOOKAHEAD)
            self._emit_input()
        produced: set[str] = set()
        for i, stage in enumerate(self.stages):
            with context.builder.layer(self._layer_of(stage)):
                self._emit_stage(i, stage, produced)
        return context.builder.assembled()

    def _emit_stage(self, i: int, stage: Stage, produced: set[str]) -> None:
        context = self.context
        context.advance(i)
        self._prepare(i + LOOKAHEAD)
        for linear in self._linears(stage):
            self._require(linear.source)
        if stage.kind == "stream":
            produced.add(stage.name)
            self._emit_stream(self.network.streams[stage.name], produced)
        elif stage.kind == "product":
            product = self.network.products[stage.name]
            for factor in (product.a, product.b):
                self._restore_streams(self.network.encodings[factor])
            emit_product(context, product)
            for factor in (product.a, product.b):
                self._encoded(self.network.encodings[factor])
        elif stage.kind == "attention":
            AttentionEmitter(context, self.network.attentions[stage.name]).emit()
        else:
            emit_output(context, self.network.linears[stage.name])
        self._release(i)
        self._update(produced)

    def _prepare(self, until: int) -> None:
        """PREPARE the encodings whose operands are needed before stage `until`."""
        if not self.context.masked:
            return
        for encoding in self.in_order:
            if self.consumers[encoding.name][0] >= until:
                break
            self._prepare_now(encoding)

    def _prepare_now(self, encoding: Encoding) -> None:
        """PREPARE an encoding unless that was done or is not needed."""
        if self.context.masked and encoding.name not in self.prepared:
            self.prepared.add(encoding.name)
            if not self._restored(encoding):
                with self.context.builder.layer(self._layer_after(encoding)):
                    emit_prepare(self.context, encoding)

    def _restore_streams(self, encoding: Encoding) -> None:
        """Bring the raw values that an encoding is restored from up to date in memory."""
        if not self._restored(encoding):
            return
        for name in encoding.streams:
            for reader in self.readers[name]:
                self._prepare_now(reader)
            if name not in self.updated:
                self.updated.add(name)
                emit_update_stream(self.context, self.network.streams[name])

    def _update(self, produced: set[str]) -> None:
        """UPDATE the streams that no PREPARE of this step will read any more."""
        if not self.context.masked:
            return
        for name in sorted(produced - self.updated):
            readers = {e.name for e in self.readers[name]}
            if readers <= self.prepared and name not in self.attended:
                self.updated.add(name)
                emit_update_stream(self.context, self.network.streams[name])

    def _encodings_in_order(self) -> list[Encoding]:
        items = [e for e in self.network.encodings.values() if self.consumers[e.name]]
        return sorted(items, key=lambda e: self.consumers[e.name][0])

    def _emit_input(self) -> None:
        context, layout = self.context, self.context.layout
        name = self.network.input
        codes = context.allocate("accumulator", layout.operand_words(name), "the network's input")
        context.load_raw("input", 0, codes, 1, Traffic.CODES)
        emit_source(context, name, codes)
        context.free(codes)

    def _require(self, source: str) -> None:
        """Encode an operand that was not encoded when its streams were produced."""
        if source in self.context.operands:
            return
        if source not in self.network.encodings:
            raise CompileError(f"operand '{source}' is used before it is produced.")
        encoding = self.network.encodings[source]
        self._prepare_now(encoding)
        self._restore_streams(encoding)
        self._encode(encoding)

    def _encode(self, encoding: Encoding) -> None:
        """Encode all parts from their streams."""
        with self.context.builder.layer(self._layer_after(encoding)):
            emitter = EncodingEmitter(self.context, encoding)
            for part in range(len(encoding.streams)):
                emitter.part(part)
            self._finish(emitter)

    def _finish(self, emitter: EncodingEmitter) -> None:
        emitter.finish()
        self._encoded(emitter.encoding)

    def _encoded(self, encoding: Encoding) -> None:
        """Release what an encoding that is done no longer reads."""
        self.encoded.add(encoding.name)
        if not self._restored(encoding):
            for name in encoding.streams:
                self.context.used(name, self.consumers[encoding.name][0])
        if encoding.norm and not self.context.masked:
            for name in encoding.streams:
                self.sum_uses[name] -= 1
                if not self.sum_uses[name]:
                    self.context.free(self.context.sums.pop(name))

    def _ready(self, name: str, produced: set[str]) -> list[Encoding]:
        """Encodings that stream `name` completes, while the input scratchpad has room for them
        and for the largest operand besides."""
        ready = []
        room = self.context.pads["input"].largest_gap() - self.reserve
        for encoding in self.readers[name]:
            later = encoding.name in self.encoded or encoding.name in self.context.layout.factors
            if later or self._restored(encoding):
                continue
            words = self.context.layout.operand_words(encoding.name)
            if set(encoding.streams) <= produced and words <= room:
                ready.append(encoding)
                room -= words
        return ready

    def _emit_stream(self, stream: Stream, produced: set[str]) -> None:
        context = self.context
        ready = self._ready(stream.name, produced)
        producer = StreamEmitter(context, stream)
        if context.masked:
            for encoding in ready:
                self._prepare_now(encoding)
            followers = []
            for encoding in ready:
                layer = self._layer_after(encoding)
                with context.builder.layer(layer):
                    emitter = EncodingEmitter(context, encoding)
                followers.append(Follower(emitter, encoding.streams.index(stream.name), layer))
            producer.emit(followers)
            for follower in followers:
                with context.builder.layer(follower.layer):
                    for part in range(len(follower.emitter.encoding.streams)):
                        if part != follower.part:
                            follower.emitter.part(part)
                    self._finish(follower.emitter)
            return
        producer.emit([])
        for encoding in ready:
            self._encode(encoding)

    def _release(self, stage: int) -> None:
        """Free operands whose last consumer was this stage."""
        for source in list(self.context.operands):
            if max(self.consumers[source], default=-1) <= stage:
                self.context.free(self.context.operands.pop(source))


def emit_phase(layout: Layout, phase: Phase) -> PhaseCode:
    """Instructions of a phase.

    Streams that had to leave the accumulator scratchpad before their last use get a copy in memory,
    which changes the program, until none is missing.
    """
    must_store: frozenset[str] = frozenset()
    while True:
        emitter = PhaseEmitter(layout, phase, must_store)
        emitted = emitter.emit()
        missing = emitter.context.evicted - must_store
        if emitter.context.masked or layout.network.knobs.dataflow == "mask" or not missing:
            return emitted
        must_store |= missing
