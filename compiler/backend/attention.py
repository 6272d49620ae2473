"""Emission of attention: scores, softmax and products on the array and the vector unit."""

from __future__ import annotations

from collections.abc import Iterator

from signmask.compiler.backend.context import Chunk, Context
from signmask.compiler.backend.encodings import emit_source
from signmask.compiler.backend.scratchpad import Block
from signmask.compiler.backend.streams import emit_update_stream
from signmask.compiler.errors import CompileError
from signmask.hw.spec.isa import Traffic
from signmask.hw.spec.network import Attention


class AttentionEmitter:
    """Emits one attention, image by image and head by head."""

    def __init__(self, context: Context, attention: Attention) -> None:
        self.context, self.attention = context, attention
        layout = context.layout
        self.stream = layout.network.streams[attention.q]
        self.queries = layout.positions(self.stream)
        self.rows, self.keys = layout.key_shape(attention)
        self.channels = self.stream.channels // attention.heads
        if self.channels % layout.group:
            raise CompileError(
                f"attention '{attention.name}' has heads of {self.channels} channels, which are no "
                f"multiple of the group of {layout.group} lanes; use heads of "
                f"{-(-self.channels // layout.group) * layout.group} channels."
            )
        self.planes = self.channels // layout.group

    def emit(self) -> None:
        """Operands, every head of every image, then the differenced or raw product codes."""
        context, layout, attention = self.context, self.context.layout, self.attention
        query = self._query()
        tokens = self.queries * layout.batch
        total = layout.planes(self.stream.channels) * tokens
        output = context.allocate("accumulator", total, f"product of '{attention.name}'")
        for image in range(layout.batch):
            for head in range(attention.heads):
                at = (head * self.planes * layout.batch + image) * self.queries
                rows = context.allocate("row", self.queries, f"rows of '{attention.name}'")
                weights = self._softmax(query, at, image, head, rows)
                self._product(weights, image, head, rows, output, at)
                context.free(rows)
        context.free(query)
        emit_source(context, attention.out, output)
        context.free(output)

    def _codes(self, name: str, multiplier: int, shift: int) -> Iterator[tuple[Chunk, Block]]:
        """Quantised chunks of a resident or stored stream (dense and restoring steps); a chunk is
        valid until the next one is asked for."""
        context = self.context
        stream = context.layout.network.streams[name]
        for chunk in context.chunks(stream):
            block, temporary = context.fetch(stream, chunk)
            context.builder.emit(
                "QUANTISE",
                {
                    "accumulator": block.start, "words": block.words, "multiplier": multiplier,
                    "shift": shift,
                },
                reads=[block],
                writes=[block],
            )  # fmt: skip
            yield chunk, block
            if temporary:
                context.free(block)

    def _read(self, name: str) -> None:
        """The engine brings y up to date and writes its codes."""
        context = self.context
        emit_update_stream(context, context.layout.network.streams[name])
        context.builder.emit(
            "READ",
            {"descriptor": context.layout.address(f"descriptor/{name}")},
            reads=[context.memory(f"y/{name}")],
            writes=[context.memory(f"codes/{name}")],
        )

    def _query(self) -> Block:
        """Query codes in the input scratchpad; key and value codes in memory."""
        context, layout, item = self.context, self.context.layout, self.attention
        words = layout.planes(self.stream.channels) * layout.plane_words(self.stream)
        query = context.allocate("input", words, f"queries of '{item.name}'")
        if context.masked:
            for name in item.streams:
                self._read(name)
            context.builder.emit(
                "LOAD_CODES",
                {
                    "address": layout.address(f"codes/{item.q}"), "words": words,
                    "input": query.start, "kind": Traffic.CODES,
                },
                reads=[context.memory(f"codes/{item.q}")],
                writes=[query],
            )  # fmt: skip
            return query
        others = (
            (item.k, item.k_multiplier, item.k_shift),
            (item.v, item.v_multiplier, item.v_shift),
        )
        for name, multiplier, shift in () if item.keys else others:
            plane_words = layout.plane_words(layout.network.streams[name])
            for chunk, block in self._codes(name, multiplier, shift):
                region = f"codes/{name}"
                context.store_raw(region, chunk.first * plane_words, block, 1, Traffic.CODES)
        plane_words = layout.plane_words(self.stream)
        for chunk, block in self._codes(item.q, item.q_multiplier, item.q_shift):
            goal = query.part(chunk.first * plane_words, block.words)
            context.builder.emit(
                "ENCODE_SOURCE",
                {
                    "accumulator": block.start, "words": block.words, "planes": chunk.planes,
                    "input": goal.start, "difference": 0, "previous": 0, "track": 0, "spill": 0,
                    "lanes": layout.group, "source": layout.source_number[item.out],
                },
                reads=[block],
                writes=[goal],
            )  # fmt: skip
        return query

    def _load(self, name: str, image: int, head: int, words: int, transpose: int) -> Block:
        """One head's key or value codes, those of a stream or constant ones, as weights."""
        context, layout = self.context, self.context.layout
        block = context.allocate("weight", words, f"operands of '{self.attention.name}'")
        word_bytes = layout.group
        row = image % self.rows
        offset = (head * self.planes * self.rows + row) * self.keys * word_bytes
        context.builder.emit(
            "LOAD_KEYS",
            {
                "address": layout.address(f"codes/{name}") + offset,
                "plane_stride": self.rows * self.keys * word_bytes, "tokens": self.keys,
                "planes": self.planes, "weight": block.start, "transpose": transpose,
            },
            reads=[context.memory(f"codes/{name}")],
            writes=[block],
        )  # fmt: skip
        return block

    def _matmul(
        self, operand: Block, stride: int, planes: int, blocks: int, weights: Block, target: Block
    ) -> None:
        self.context.builder.emit(
            "MATMUL",
            {
                "input": operand.start, "input_stride": stride, "images": 1, "in_height": 1,
                "in_width": self.queries, "planes": planes, "kernel": 1, "step": 1, "padding": 0,
                "upsample": 1, "out_height": 1, "out_width": self.queries, "blocks": blocks,
                "weight": weights.start, "accumulator": target.start,
                "accumulator_stride": self.queries, "delta": 0, "accumulate": 0, "zero": 0,
            },
            reads=[operand, weights],
            writes=[target],
        )  # fmt: skip

    def _softmax(self, query: Block, at: int, image: int, head: int, rows: Block) -> Block:
        """Scores of one head and their softmax codes in the input scratchpad."""
        context, layout, item = self.context, self.context.layout, self.attention
        columns = layout.config.columns
        blocks = -(-self.keys // columns)
        keys = self._load(item.keys or item.k, image, head, blocks * self.planes, transpose=0)
        written = -(-blocks * columns // layout.group)
        scores = context.allocate("accumulator", written * self.queries, f"scores of '{item.name}'")
        stride = layout.batch * self.queries
        operand = Block("input", query.start + at, (self.planes - 1) * stride + self.queries)
        self._matmul(operand, stride, self.planes, blocks, keys, scores)
        context.free(keys)
        planes = layout.planes(self.keys)
        result = context.allocate("input", planes * self.queries, f"softmax of '{item.name}'")
        context.builder.emit(
            "SOFTMAX",
            {
                "accumulator": scores.start, "stride": self.queries, "tokens": self.queries,
                "keys": self.keys, "multiplier": item.score_multiplier,
                "shift": item.score_shift, "input": result.start, "rows": rows.start,
            },
            reads=[scores],
            writes=[result, rows],
        )  # fmt: skip
        context.free(scores)
        return result

    def _product(
        self, weights: Block, image: int, head: int, rows: Block, output: Block, at: int
    ) -> None:
        """Softmax codes times V, normalised by row, into the output codes."""
        context, layout, item = self.context, self.context.layout, self.attention
        blocks = -(-self.channels // layout.config.columns)
        key_planes = layout.planes(self.keys)
        values = self._load(item.values or item.v, image, head, blocks * key_planes, transpose=1)
        written = -(-blocks * layout.config.columns // layout.group)
        product = context.allocate(
            "accumulator", written * self.queries, f"product of '{item.name}'"
        )
        self._matmul(weights, self.queries, key_planes, blocks, values, product)
        context.free(values)
        context.free(weights)
        stride = layout.batch * self.queries
        goal = Block("accumulator", output.start + at, (self.planes - 1) * stride + self.queries)
        context.builder.emit(
            "NORMALISE_ROWS",
            {
                "accumulator": product.start, "stride": self.queries, "tokens": self.queries,
                "planes": self.planes, "rows": rows.start, "multiplier": item.out_multiplier,
                "shift": item.out_shift, "zero": layout.network.sources[item.out].zero,
                "output": goal.start, "output_stride": stride,
            },
            reads=[product, rows],
            writes=[goal],
        )  # fmt: skip
        context.free(product)
