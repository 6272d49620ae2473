"""Emission of attention: scores, softmax and products on the array and the vector unit."""

from __future__ import annotations

from collections.abc import Iterator

from signmask.compiler.backend.context import Chunk, Context
from signmask.compiler.backend.encodings import allocate_source, emit_source_chunk
from signmask.compiler.backend.scratchpad import Block
from signmask.compiler.backend.streams import emit_update_stream
from signmask.compiler.errors import CompileError
from signmask.hw.spec.isa import Traffic
from signmask.hw.spec.network import Attention

LONGEST_TILE = 2047  # in_width of MATMUL


class AttentionEmitter:
    """Emits one attention, image by image and head by head."""

    def __init__(self, context: Context, attention: Attention) -> None:
        self.context, self.attention = context, attention
        layout = context.layout
        self.stream = layout.network.streams[attention.q]
        self.positions = layout.positions(self.stream)
        self.queries = attention.frames or self.positions
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
        self.stride = layout.batch * self.positions  # words of a plane
        tiles = self._tiles()
        context.operands[attention.out] = allocate_source(context, attention.out)
        for head in range(attention.heads):
            output = context.allocate(
                "accumulator", self.planes * self.stride, f"product of '{attention.name}'"
            )
            first = query.start + head * self.planes * self.stride
            for row in range(self.stride // self.queries):
                operands = _Operands(self, row, head, kept=len(tiles) > 1)
                for tile in tiles:
                    at = row * self.queries + tile.start
                    begin = self._begin(row) if attention.frames else at
                    self._tile(tile, operands, first + begin, output.start + at)
                operands.free()
            chunk = Chunk(head * self.planes, self.planes)
            emit_source_chunk(context, attention.out, chunk, output)
            context.free(output)
        context.free(query)

    def _begin(self, row: int) -> int:
        """First word of a position of a video in a plane of frames."""
        video, position = divmod(row, self.positions)
        return video * self.queries * self.positions + position

    def _tiles(self) -> list[range]:
        """Queries that are worked on together: as many as the scratchpads hold scores of."""
        context, layout = self.context, self.context.layout
        columns, n = layout.config.columns, layout.group
        scores = -(-(-(-self.keys // columns) * columns) // n)
        products = -(-(-(-self.channels // columns) * columns) // n)
        output = self.planes * self.stride
        source = layout.operand_words(self.attention.out)
        # Half of what is free, which later blocks may cut in two.
        room = min(
            (context.obtainable("accumulator") - output) // (2 * max(scores, products)),
            (context.obtainable("input") - source) // (2 * layout.planes(self.keys)),
            context.pads["row"].largest_gap(),
            LONGEST_TILE,
        )
        if room < 1:
            raise CompileError(
                f"attention '{self.attention.name}' over {self.keys} keys finds no room for the "
                f"scores of one query in config '{layout.config.name}'; lower --batch (now "
                f"{layout.batch}) or raise accumulator_words and input_words."
            )
        count = -(-self.queries // room)
        size = -(-self.queries // count)
        return [
            range(start, min(start + size, self.queries)) for start in range(0, self.queries, size)
        ]

    def _tile(self, tile: range, operands: _Operands, query: int, output: int) -> None:
        """Scores, softmax and product of some queries of a head."""
        context = self.context
        rows = context.allocate("row", len(tile), f"rows of '{self.attention.name}'")
        weights = self._softmax(len(tile), operands, query, rows)
        self._product(len(tile), operands, weights, rows, output)
        context.free(rows)

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
        slack = layout.slack(self.stream, item.frames)
        query = context.allocate("input", words + slack, f"queries of '{item.name}'")
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

    def load(self, name: str, row: int, head: int, size: int, transpose: int) -> Block:
        """One head's key or value codes, those of a stream or constant ones, as weights."""
        context, layout = self.context, self.context.layout
        block = context.allocate("weight", size, f"operands of '{self.attention.name}'")
        word_bytes = layout.group
        words = self.rows * self.keys  # of a plane
        begin = self._begin(row) if self.attention.frames else row % self.rows * self.keys
        offset = (head * self.planes * words + begin) * word_bytes
        step = self.positions if self.attention.frames else 1
        context.builder.emit(
            "LOAD_KEYS",
            {
                "address": layout.address(f"codes/{name}") + offset,
                "plane_stride": words * word_bytes, "token_stride": step * word_bytes,
                "tokens": self.keys,
                "planes": self.planes, "weight": block.start, "transpose": transpose,
            },
            reads=[context.memory(f"codes/{name}")],
            writes=[block],
        )  # fmt: skip
        return block

    def _matmul(
        self, queries: int, operand: Block, stride: int, planes: int, blocks: int, weights: Block,
        target: Block, step: int = 1,
    ) -> None:  # fmt: skip
        """A product of `queries` operands, `step` words apart in a plane."""
        rows, columns = (queries, 1) if step > 1 else (1, queries)
        self.context.builder.emit(
            "MATMUL",
            {
                "input": operand.start, "input_stride": stride, "images": 1, "in_height": rows,
                "in_width": step if step > 1 else queries, "planes": planes, "kernel": 1,
                "step": 1, "padding": 0, "upsample": 1, "out_height": rows, "out_width": columns,
                "blocks": blocks,
                "weight": weights.start, "accumulator": target.start,
                "accumulator_stride": queries, "delta": 0, "accumulate": 0, "zero": 0,
            },
            reads=[operand, weights],
            writes=[target],
        )  # fmt: skip

    def _softmax(self, queries: int, operands: _Operands, query: int, rows: Block) -> Block:
        """Scores of some queries and their softmax codes in the input scratchpad."""
        context, layout, item = self.context, self.context.layout, self.attention
        columns = layout.config.columns
        blocks = -(-self.keys // columns)
        keys = operands.keys()
        written = -(-blocks * columns // layout.group)
        scores = context.allocate("accumulator", written * queries, f"scores of '{item.name}'")
        step = self.positions if item.frames else 1
        operand = Block("input", query, (self.planes - 1) * self.stride + queries * step)
        self._matmul(queries, operand, self.stride, self.planes, blocks, keys, scores, step)
        operands.used(keys)
        planes = layout.planes(self.keys)
        result = context.allocate("input", planes * queries, f"softmax of '{item.name}'")
        context.builder.emit(
            "SOFTMAX",
            {
                "accumulator": scores.start, "stride": queries, "tokens": queries,
                "keys": self.keys, "multiplier": item.score_multiplier,
                "shift": item.score_shift, "input": result.start, "rows": rows.start,
            },
            reads=[scores],
            writes=[result, rows],
        )  # fmt: skip
        context.free(scores)
        return result

    def _product(
        self, queries: int, operands: _Operands, weights: Block, rows: Block, output: int
    ) -> None:
        """Softmax codes times V, normalised by row, into the output codes."""
        context, layout, item = self.context, self.context.layout, self.attention
        blocks = -(-self.channels // layout.config.columns)
        key_planes = layout.planes(self.keys)
        values = operands.values()
        written = -(-blocks * layout.config.columns // layout.group)
        product = context.allocate("accumulator", written * queries, f"product of '{item.name}'")
        self._matmul(queries, weights, queries, key_planes, blocks, values, product)
        operands.used(values)
        context.free(weights)
        goal = Block("accumulator", output, (self.planes - 1) * self.stride + queries)
        context.builder.emit(
            "NORMALISE_ROWS",
            {
                "accumulator": product.start, "stride": queries, "tokens": queries,
                "planes": self.planes, "rows": rows.start, "multiplier": item.out_multiplier,
                "shift": item.out_shift, "zero": layout.network.sources[item.out].zero,
                "output": goal.start, "output_stride": self.stride,
            },
            reads=[product, rows],
            writes=[goal],
        )  # fmt: skip
        context.free(product)


class _Operands:
    """Keys and values of one head as weights: loaded once for all tiles (`kept`) where both fit the
    weight scratchpad, else for each use."""

    def __init__(self, emitter: AttentionEmitter, row: int, head: int, kept: bool) -> None:
        self.emitter, self.row, self.head = emitter, row, head
        layout = emitter.context.layout
        columns = layout.config.columns
        self.sizes = (
            -(-emitter.keys // columns) * emitter.planes,
            -(-emitter.channels // columns) * layout.planes(emitter.keys),
        )
        self.kept = kept and sum(self.sizes) <= emitter.context.pads["weight"].largest_gap()
        self._blocks: dict[int, Block] = {}

    def keys(self) -> Block:
        """Keys: an output channel for each token."""
        return self._load(0)

    def values(self) -> Block:
        """Values: an operand for each token."""
        return self._load(1)

    def _load(self, transpose: int) -> Block:
        if transpose not in self._blocks:
            item = self.emitter.attention
            name = (item.values or item.v) if transpose else (item.keys or item.k)
            block = self.emitter.load(name, self.row, self.head, self.sizes[transpose], transpose)
            if not self.kept:
                return block
            self._blocks[transpose] = block
        return self._blocks[transpose]

    def used(self, block: Block) -> None:
        """One use was emitted."""
        if not self.kept:
            self.emitter.context.free(block)

    def free(self) -> None:
        """No tile follows."""
        for block in self._blocks.values():
            self.emitter.context.free(block)
