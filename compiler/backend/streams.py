"""Emission of streams: matrix products, requantisation, residual additions, stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from signmask.compiler.backend.context import Chunk, Context
from signmask.compiler.backend.encodings import EncodingEmitter
from signmask.compiler.backend.grouping import Run
from signmask.compiler.backend.scratchpad import Block
from signmask.compiler.errors import CompileError
from signmask.hw.spec.isa import Step, Traffic
from signmask.hw.spec.network import CodeSource, Encoding, Linear, Stream

NO_MULTIPLIER = 63
MOST_PLANES = 255  # of an instruction


def emit_matmul(
    context: Context, linear: Linear, chunk: Chunk, target: Block, accumulate: bool
) -> None:
    """Weights of a chunk of output planes, then its matrix product into accumulator `target`."""
    layout = context.layout
    first, end = layout.blocks(chunk.first), layout.blocks(chunk.first + chunk.planes)
    at = 0  # weight word of the run
    for run in layout.runs(linear):
        low, high = max(run.first, first), min(run.first + run.blocks, end)
        per_block = linear.kernel**2 * run.planes
        if low < high:
            part = Run(low, high - low, run.low, run.planes)
            words = at + (low - run.first) * per_block
            plane = low * layout.config.columns // layout.group - chunk.first
            _emit_run(context, linear, part, words, target, plane, accumulate)
        at += run.blocks * per_block


def _emit_run(
    context: Context, linear: Linear, run: Run, first_word: int, target: Block, plane: int,
    accumulate: bool,
) -> None:  # fmt: skip
    """Column blocks that read the same planes; their first plane is `plane` of the target."""
    layout = context.layout
    source = layout.network.shape_of(linear.source)
    words = run.blocks * linear.kernel**2 * run.planes
    weights = context.allocate("weight", words, f"weights of '{linear.name}'")
    word_bytes = layout.config.columns * layout.group
    offset = first_word * word_bytes
    region = f"weights/{linear.name}"
    context.builder.emit(
        "LOAD_WEIGHTS",
        {
            "address": layout.address(region) + offset, "words": weights.words,
            "weight": weights.start,
        },
        reads=[context.memory(region)],
        writes=[weights],
    )  # fmt: skip
    stride = layout.batch * linear.out_height * linear.out_width
    filled = target.part(plane * stride, layout.block_planes_of(run.blocks) * stride)
    whole = context.operands[linear.source]
    plane_words = layout.plane_words(source)
    frames = layout.frames(linear.source)
    slack = layout.slack(source, frames)
    operand = whole.part(run.low * plane_words, run.planes * plane_words + slack)
    for place in _places(context, linear, source, frames):
        context.builder.emit(
            "MATMUL",
            {
                "input": operand.start + place.input, "input_stride": plane_words,
                "images": place.images, "in_height": place.in_height, "in_width": place.in_width,
                "planes": run.planes, "kernel": linear.kernel, "step": linear.stride,
                "padding": linear.padding, "upsample": linear.upsample,
                "out_height": place.out_height, "out_width": place.out_width,
                "blocks": run.blocks, "weight": weights.start,
                "accumulator": filled.start + place.output, "accumulator_stride": stride,
                "delta": int(context.phase == "delta"), "accumulate": int(accumulate),
                "zero": source.zero,
            },
            reads=[operand, weights, *([filled] if accumulate else [])],
            writes=[filled],
        )  # fmt: skip
    context.free(weights)


class _Place(NamedTuple):
    """First words of what a MATMUL reads and writes, and its shape."""

    input: int
    output: int
    images: int
    in_height: int
    in_width: int
    out_height: int
    out_width: int


def _places(
    context: Context, linear: Linear, source: Encoding | CodeSource, frames: int
) -> list[_Place]:
    """All positions at once; where those of a video follow each other frame by frame, the ones of
    each image in turn, every `frames` words."""
    batch, size = context.layout.batch, (linear.out_height, linear.out_width)
    pointwise = linear.kernel == linear.stride == linear.upsample == 1
    if not frames:
        # Maps to token sequences are views.
        given = size if pointwise else (source.height, source.width)
        return [_Place(0, 0, batch, *given, *size)]
    if not pointwise:
        raise CompileError(
            f"'{linear.name}' has a kernel and reads attention over frames; put a linear layer "
            "between."
        )
    positions = context.layout.positions(source)
    return [
        _Place(
            video * frames * positions + frame, (video * frames + frame) * positions, 1,
            positions, frames, positions, 1,
        )
        for video in range(batch // frames)
        for frame in range(frames)
    ]  # fmt: skip


class Follower(NamedTuple):
    """An encoding that takes the chunks of a stream, as its part `part`, for a layer."""

    emitter: EncodingEmitter
    part: int
    layer: str


class StreamEmitter:
    """Emits one stream: every Linear that names it, its table, its addends, its stores."""

    def __init__(self, context: Context, stream: Stream) -> None:
        self.context, self.stream = context, stream
        layout = context.layout
        network = layout.network
        self.linears = [item for item in network.linears.values() if item.out == stream.name]
        self.words = layout.plane_words(stream)
        self.planes = layout.planes(stream.channels)
        size = layout.output_planes(stream.channels) * self.words
        # None: the stream passes through the scratchpad chunk by chunk.
        self.block = context.try_resident(stream.name, size)
        self.images = layout.table_images(stream)
        entries = self.planes * self.images
        self.multipliers = [
            context.load_parameters(f"multiplier/{item.name}", entries, 2) for item in self.linears
        ]
        table = f"table/{stream.name}"
        row = layout.row_stride(table)
        self.tables = [context.load_parameters(table, entries, 4, Step.NOW, row)]
        if context.masked:
            self.tables.append(context.load_parameters(table, entries, 4, Step.LAST, row))
        self.sums: Block | None = None
        if not context.masked and stream.name in layout.normed_streams():
            self.sums = context.allocate(
                "parameter", 2 * self.planes * layout.batch, f"sums of '{stream.name}'"
            )

    def emit(self, followers: Sequence[Follower]) -> None:
        """All chunks; in a mask step each chunk goes straight on to the followers."""
        context = self.context
        for chunk in context.chunks(self.stream):
            target = self._chunk(chunk)
            self._store(chunk, target)
            if context.masked:
                for follower in followers:
                    with context.builder.layer(follower.layer):
                        follower.emitter.chunk(follower.part, chunk, target)
            if self.block is None:
                context.free(self.passing)
        for block in (*self.multipliers, *self.tables):
            context.free(block)
        if self.block is not None:
            context.resident[self.stream.name] = self.block
        if self.sums:
            context.sums[self.stream.name] = self.sums
            if context.dataflow == "mask":
                self._store_sums(self.sums)

    def _chunk(self, chunk: Chunk) -> Block:
        """Products and sums of one chunk; returns its final words."""
        context, layout = self.context, self.context.layout
        written = layout.output_planes(chunk.planes * layout.group) * self.words
        if self.block is None:
            whole = context.allocate("accumulator", written, f"stream '{self.stream.name}'")
            self.passing = whole
        else:
            whole = self.block.part(chunk.first * self.words, written)
        target = whole.part(0, chunk.planes * self.words)
        with context.pinned(self.stream.adds):
            carry, temporaries = self._addends(chunk, target)
            for i, linear in enumerate(self.linears):
                last = i == len(self.linears) - 1
                product = whole
                if not last:
                    what = f"product of '{linear.name}'"
                    product = context.allocate("accumulator", written, what)
                    temporaries.append(product)
                self._product(linear, chunk, product)
                words = product.part(0, chunk.planes * self.words)
                self._requantise(words, chunk, i, carry, final=last)
                carry = words
            for block in temporaries:
                context.free(block)
        return target

    def _addends(self, chunk: Chunk, target: Block) -> tuple[Block | None, list[Block]]:
        """Sum of the residual streams; without a Linear the last one ends in `target`."""
        context = self.context
        carry: Block | None = None
        temporaries: list[Block] = []
        if self.stream.offset and not context.masked:
            constant = f"constant of '{self.stream.name}'"
            carry = context.allocate("accumulator", target.words, constant)
            first = chunk.first * self.words
            context.load_raw(f"offset/{self.stream.name}", first, carry, 4, Traffic.PARAMETERS)
            temporaries.append(carry)
        for i, name in enumerate(self.stream.adds):
            stream = context.layout.network.streams[name]
            block, temporary = context.fetch(stream, chunk)
            if temporary:
                temporaries.append(block)
            final = not self.linears and i == len(self.stream.adds) - 1
            if carry is None and not final:
                carry = block
                continue
            goal = target
            if not final:
                goal = context.allocate("accumulator", block.words, f"sum for '{stream.name}'")
                temporaries.append(goal)
            self._copy(block, goal)
            self._requantise(goal, chunk, None, carry, final)
            carry = goal
        return carry, temporaries

    def _copy(self, block: Block, goal: Block) -> None:
        """Copy accumulator words: the requantiser works in place and addends are still needed."""
        self.context.builder.emit(
            "COPY",
            {"accumulator": block.start, "words": block.words, "output": goal.start},
            reads=[block],
            writes=[goal],
        )

    def _product(self, linear: Linear, chunk: Chunk, product: Block) -> None:
        with self.context.builder.layer(linear.name):
            self._multiply(linear, chunk, product)

    def _multiply(self, linear: Linear, chunk: Chunk, product: Block) -> None:
        context = self.context
        restore = context.dataflow == "restore"
        region, first = f"accumulator/{linear.name}", chunk.first * self.words
        if context.restoring:
            context.load_raw(region, first, product, 4, Traffic.RAW)
        emit_matmul(context, linear, chunk, product, accumulate=context.restoring)
        if restore:
            context.store_raw(region, first, product, 4, Traffic.RAW)

    def _requantise(
        self, words: Block, chunk: Chunk, linear: int | None, carry: Block | None, final: bool
    ) -> None:
        context, layout = self.context, self.context.layout
        has_last = final and context.masked
        sums = self.sums if final else None
        batch = layout.batch
        shift = NO_MULTIPLIER if linear is None else self.linears[linear].shift
        multipliers = 0 if linear is None else self.multipliers[linear].start
        reads = [words, *self.multipliers, *self.tables, *([carry] if carry else [])]
        for first, planes in self._pieces(chunk):
            at = (first - chunk.first * self.images) * self.words // self.images
            context.builder.emit(
                "REQUANTISE",
                {
                    "accumulator": words.start + at,
                    "words": planes * self.words // self.images, "planes": planes,
                    "images": batch // self.images,
                    "multiplier": 0 if linear is None else multipliers + first, "shift": shift,
                    "has_table": int(final), "has_last": int(has_last),
                    "now": self.tables[0].start + first if final else 0,
                    "last": self.tables[1].start + first if has_last else 0,
                    "has_add": int(carry is not None), "add": carry.start + at if carry else 0,
                    "bits": self.stream.bits if final else 0, "has_sums": int(sums is not None),
                    "sums": sums.start + 2 * first * (batch // self.images) if sums else 0,
                    "stat_shift": stat_shift(context, self.stream),
                    "lanes": context.lanes(self.stream.channels, chunk),
                    "stream": layout.stream_number[self.stream.name],
                },
                reads=reads,
                writes=[words, *([sums] if sums else [])],
            )  # fmt: skip

    def _pieces(self, chunk: Chunk) -> list[tuple[int, int]]:
        """(first, number) of the planes that an instruction requantises. Where images have tables
        of their own, the part of a plane that is an image's counts as a plane."""
        first, end = (x * self.images for x in (chunk.first, chunk.first + chunk.planes))
        return [(at, min(MOST_PLANES, end - at)) for at in range(first, end, MOST_PLANES)]

    def _store(self, chunk: Chunk, target: Block) -> None:
        context, stream = self.context, self.stream
        if context.masked:
            fields, goal = context.delta_location(stream, chunk)
            context.builder.emit(
                "STORE_DELTAS",
                fields | {"accumulator": target.start},
                reads=[target],
                writes=[goal],
            )
        elif context.dataflow == "mask" or stream.name in context.must_store:
            context.store_raw(
                f"y/{stream.name}", chunk.first * self.words, target,
                context.layout.y_bytes(stream), Traffic.RAW,
            )  # fmt: skip

    def _store_sums(self, sums: Block) -> None:
        region = f"sums/{self.stream.name}"
        self.context.builder.emit(
            "STORE_PARAMETERS",
            {
                "address": self.context.layout.address(region), "words": sums.words,
                "entry_bytes": 8, "parameter": sums.start,
            },
            reads=[sums],
            writes=[self.context.memory(region)],
        )  # fmt: skip


def stat_shift(context: Context, stream: Stream) -> int:
    """Right shift of y before its sums, which the norms on the stream share; raises CompileError
    where they differ."""
    shifts = {
        e.norm.stat_shift
        for e in context.layout.network.encodings.values()
        if e.norm and stream.name in e.streams
    }
    if len(shifts) > 1:
        raise CompileError(
            f"the norms on stream '{stream.name}' shift its sums by {sorted(shifts)}; quantise "
            "them with one stat_shift."
        )
    return shifts.pop() if shifts else 0


def emit_update_stream(context: Context, stream: Stream) -> None:
    """The engine adds dy to y and renews the sums."""
    name = stream.name
    context.builder.emit(
        "UPDATE_STREAM",
        {"descriptor": context.layout.address(f"descriptor/{name}")},
        reads=[context.memory(f"dy/{name}"), context.memory(f"y/{name}")],
        writes=[context.memory(f"y/{name}"), context.memory(f"sums/{name}")],
    )


def emit_output(context: Context, linear: Linear) -> None:
    """The network's output accumulators, kept exact in the region `output`."""
    layout = context.layout
    words = layout.batch * linear.out_height * linear.out_width
    planes = layout.output_planes(linear.out_channels)
    block = context.allocate("accumulator", planes * words, "the output accumulators")
    differential = context.phase == "delta"
    if differential:
        context.load_raw("output", 0, block, 4, Traffic.RAW)
    emit_matmul(context, linear, Chunk(0, planes), block, accumulate=differential)
    context.store_raw("output", 0, block, 4, Traffic.RAW)
    context.free(block)
