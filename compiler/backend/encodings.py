"""Emission of layer boundaries: constants, activation, differencing, operands."""

from __future__ import annotations

from dataclasses import dataclass

from signmask.compiler.backend.context import Chunk, Context
from signmask.compiler.backend.layout import CORRECTION_WIDE_BYTES, delta_bytes
from signmask.compiler.backend.scratchpad import Block
from signmask.hw.spec.isa import LOOPS, MAX_PARTS, Traffic
from signmask.hw.spec.network import Encoding, Stream, TokenNorm


@dataclass(frozen=True)
class Piece:
    """Words [start, start + count) of each plane in [plane, plane + planes): all words of a plane,
    unless there is one plane only."""

    plane: int
    planes: int
    start: int
    count: int


class EncodingEmitter:
    """Emits one encoding part by part, so that parts can follow their producer chunk by chunk.

    Its mode in this phase: `masked` by segments from differences, else from raw values, `restoring`
    their difference from what was sent before.
    """

    def __init__(self, context: Context, encoding: Encoding) -> None:
        self.context, self.encoding = context, encoding
        layout = context.layout
        self.masked = context.masked and encoding.mode == "mask"
        self.restoring = context.phase == "delta" and encoding.mode == "restore"
        self.words = layout.plane_words(encoding)
        self.shared = layout.shares_constants(encoding)
        self.images = 1 if self.shared else layout.batch
        self.part_planes = layout.encoding_planes(encoding)
        self.segments = context.load_parameters(f"segment_table/{encoding.name}", 3, 8)
        self.constants = self._gain() if self.masked else self._constants()
        self.operand: Block | None = None
        if encoding.name not in layout.factors:
            self.operand = context.allocate(
                "input", layout.operand_words(encoding.name), f"encoding '{encoding.name}'"
            )

    def _gain(self) -> Block:
        """Gains A written by PREPARE."""
        words = sum(self.part_planes) * self.images
        return self.context.load_parameters(f"gain/{self.encoding.name}", words, 4)

    def _constants(self) -> Block:
        """Constants A, B: live from the sums of this step, or fixed."""
        context, encoding = self.context, self.encoding
        planes = sum(self.part_planes)
        if not encoding.norm:
            return context.load_rows(f"affine/{encoding.name}", 2 * planes * self.images)
        block = context.allocate(
            "parameter", 2 * planes * self.images, f"constants of '{encoding.name}'"
        )
        sums = [self._sums(name) for name in encoding.streams]
        tables = {
            "record": context.load_parameters(
                f"norm_record/{encoding.name}", context.layout.record_words(), 8
            ),
            "gain": context.load_rows(f"gain_table/{encoding.name}", planes),
            "offset": context.load_rows(f"offset/{encoding.name}", planes),
        }
        fields = {name: table.start for name, table in tables.items()}
        fields["constants"] = block.start
        for part in range(MAX_PARTS):
            fields[f"sums_{part}"] = sums[part].start if part < len(sums) else 0
        context.builder.emit("CONSTANTS", fields, reads=[*sums, *tables.values()], writes=[block])
        for table in tables.values():
            context.free(table)
        if context.masked:
            for sum_block in sums:
                context.free(sum_block)
        return block

    def _sums(self, name: str) -> Block:
        """Sums of a stream: of this step's products, or the engine's where it keeps the stream."""
        context = self.context
        if not context.masked:
            return context.sums[name]
        planes = context.layout.planes(context.layout.network.streams[name].channels)
        return context.load_parameters(f"sums/{name}", 2 * planes * context.layout.batch, 8)

    def chunk(self, part: int, chunk: Chunk, source: Block) -> None:
        """Encode one chunk of a part from accumulator words `source` (y, or dy in a mask step)."""
        context, layout = self.context, self.context.layout
        stream = layout.network.streams[self.encoding.streams[part]]
        plane = sum(self.part_planes[:part]) + chunk.first
        piece = Piece(plane, chunk.planes, 0, self.words)
        lanes = context.lanes(stream.channels, chunk)
        if not self.masked:
            codes = self.encode(piece, source, lanes)
            context.free(codes)
            return
        operand = self._operand(piece)
        fields = self._fields(piece, source, operand, lanes)
        self._masked(fields, source, operand, plane, chunk)

    def _operand(self, piece: Piece) -> Block:
        """Words of the operand that a piece fills; a factor's go nowhere in particular."""
        size = piece.planes * piece.count
        if self.operand is None:
            name = self.encoding.name
            return self.context.allocate("input", size, f"codes of factor '{name}'")
        return self.operand.part(piece.plane * self.words + piece.start, size)

    def _fields(self, piece: Piece, source: Block, operand: Block, lanes: int) -> dict[str, int]:
        """What both ways of encoding tell."""
        layout, encoding = self.context.layout, self.encoding
        whole = piece.count == self.words
        return {
            "accumulator": source.start, "words": piece.planes * piece.count,
            "planes": piece.planes, "images": layout.batch if whole else 1,
            "segments": self.segments.start, "shared_constants": int(self.shared),
            "z_shift": encoding.z_shift, "code_shift": encoding.code_shift,
            "input": operand.start, "spill": int(layout.network.knobs.overflow == "spill"),
            "lanes": lanes, "source": layout.source_number[encoding.name],
        }  # fmt: skip

    def encode(self, piece: Piece, source: Block, lanes: int) -> Block:
        """Codes of a piece from its raw values: sent, stored for the next step, and returned in
        accumulator words that the caller frees."""
        context, encoding = self.context, self.encoding
        operand, name = self._operand(piece), encoding.name
        size, first = piece.planes * piece.count, piece.plane * self.words + piece.start
        codes = context.allocate("accumulator", size, f"codes of '{name}'")
        if self.restoring:
            context.load_raw(f"x/{name}", first, codes, 1, Traffic.CODES)
        first_constant = piece.plane * self.images
        if not self.shared:
            first_constant += piece.start // context.layout.positions(encoding)
        context.builder.emit(
            "ENCODE_RAW",
            self._fields(piece, source, operand, lanes)
            | {
                "constants": self.constants.start + 2 * first_constant,
                "constants_stride": 2, "low": encoding.low, "high": encoding.high,
                "codes": codes.start, "difference": int(self.restoring), "previous": codes.start,
            },
            reads=[source, self.constants, self.segments, *([codes] if self.restoring else [])],
            writes=[operand, codes],
        )  # fmt: skip
        if self.operand is None:
            context.free(operand)
        elif context.keeps_state:
            entry, kind = (2, Traffic.RAW) if encoding.mode == "mask" else (1, Traffic.CODES)
            context.store_raw(f"x/{name}", first, codes, entry, kind)
        return codes

    def _masked(
        self, fields: dict[str, int], source: Block, operand: Block, plane: int, chunk: Chunk
    ) -> None:
        context, encoding = self.context, self.encoding
        layout = context.layout
        knobs = layout.network.knobs
        mask = context.allocate(
            "mask", chunk.planes * self.words, f"masks of encoding '{encoding.name}'"
        )
        if knobs.loop == "closed":
            self._load_corrections(plane, chunk.planes, mask)
        self._load_bits("segments", layout.segment_bits(encoding), plane, mask, residue=0)
        if knobs.loop == "closed":
            context.load_outliers(limit=0)
        if knobs.loop == "carry":
            self._load_bits("residue", knobs.carry_bits, plane, mask, residue=1)
        context.builder.emit(
            "ENCODE_MASK",
            fields
            | {
                "gain": self.constants.start + plane * self.images, "mask": mask.start,
                "loop": LOOPS.index(knobs.loop), "carry_bits": knobs.carry_bits,
            },
            reads=[source, self.constants, self.segments, mask],
            writes=[operand],
        )  # fmt: skip
        context.free(mask)

    def _load_bits(self, region: str, bits: int, plane: int, mask: Block, residue: int) -> None:
        name, group = f"{region}/{self.encoding.name}", self.context.layout.group
        offset = plane * self.words * group * bits // 8
        self.context.builder.emit(
            "LOAD_MASK",
            {
                "address": self.context.layout.address(name) + offset, "words": mask.words,
                "bits": bits, "residue": residue, "mask": mask.start,
            },
            reads=[self.context.memory(name, offset, mask.words * group * bits // 8)],
            writes=[mask],
        )  # fmt: skip

    def _load_corrections(self, plane: int, planes: int, mask: Block) -> None:
        """Narrow corrections, plane by plane as PREPARE writes them; outliers follow later."""
        context, layout, name = self.context, self.context.layout, self.encoding.name
        bits, group = layout.network.knobs.inlier_bits, layout.group
        size = delta_bytes(self.words, group, bits)
        for i in range(planes):
            offset = delta_bytes((plane + i) * self.words, group, bits)
            context.load_deltas(
                {
                    "address": layout.address(f"corrections/{name}") + offset,
                    "list": layout.address(f"correction_list/{name}")
                    + (plane + i) * self.words * group * CORRECTION_WIDE_BYTES,
                    "words": self.words, "inlier_bits": bits, "wide_bytes": CORRECTION_WIDE_BYTES,
                },
                context.memory(f"corrections/{name}", offset, size),
                mask.part(i * self.words, self.words),
                Traffic.CORRECTIONS,
            )  # fmt: skip

    def part(self, part: int) -> None:
        """Encode a whole part from its resident or stored stream."""
        context = self.context
        stream = context.layout.network.streams[self.encoding.streams[part]]
        if self.encoding.token_norm:
            self._tokens(stream, self.encoding.token_norm)
            return
        for chunk in context.chunks(stream):
            with context.pinned([stream.name]):
                block, temporary = context.fetch(stream, chunk, raw=not self.masked)
                self.chunk(part, chunk, block)
            if temporary:
                context.free(block)

    def _tokens(self, stream: Stream, norm: TokenNorm) -> None:
        """Normalise and encode whole tokens, as many at once as a quarter of the scratchpad
        holds."""
        context, layout = self.context, self.context.layout
        planes = layout.planes(stream.channels)
        most = max(1, context.pads["accumulator"].words // (4 * planes))
        for start, count in self._spans(most):
            block = context.allocate(
                "accumulator", planes * count, f"normalised tokens of '{self.encoding.name}'"
            )
            source, at, stride = block, block.start, count
            if context.raw_resident(stream):
                source = context.resident[stream.name]
                at, stride = source.start + start, self.words
            else:
                for plane in range(planes):
                    context.load_raw(
                        f"y/{stream.name}", plane * self.words + start,
                        block.part(plane * count, count), layout.y_bytes(stream), Traffic.RAW,
                    )  # fmt: skip
            context.builder.emit(
                "NORMALISE_TOKENS",
                {
                    "accumulator": at, "stride": stride, "tokens": count, "planes": planes,
                    "count": norm.count, "epsilon": norm.epsilon, "stat_shift": norm.stat_shift,
                    "shift": norm.shift, "uncentred": int(not norm.centred),
                    "output": block.start, "output_stride": count,
                },
                reads=[source],
                writes=[block],
            )  # fmt: skip
            last = context.lanes(stream.channels, Chunk(0, planes))
            if count == self.words:
                context.free(self.encode(Piece(0, planes, 0, count), block, last))
            else:
                for plane in range(planes):
                    piece = Piece(plane, 1, start, count)
                    lanes = last if plane == planes - 1 else layout.group
                    part = block.part(plane * count, count)
                    context.free(self.encode(piece, part, lanes))
            context.free(block)

    def _spans(self, most: int) -> list[tuple[int, int]]:
        """(first word, count) of at most `most` words of a plane: all of them at once where they
        fit, otherwise those of one image where images have constants of their own."""
        if self.words <= most:
            return [(0, self.words)]
        whole = self.words // self.images
        return [
            (image + start, min(most, whole - start))
            for image in range(0, self.words, whole)
            for start in range(0, whole, most)
        ]

    def finish(self) -> None:
        """All parts are encoded: the operand is ready, the engine may replay it."""
        context = self.context
        if self.operand is not None:
            context.operands[self.encoding.name] = self.operand
        context.free(self.segments)
        context.free(self.constants)
        if self.masked:
            emit_update_codes(context, self.encoding)


def boundary_regions(context: Context, encoding: Encoding) -> tuple[list[Block], list[Block]]:
    """What UPDATE_CODES reads and writes in memory."""
    name = encoding.name
    reads = [
        context.memory(f"{kind}/{name}")
        for kind in ("segments", "corrections", "gain", "residue", "x")
    ]
    reads += [context.memory(f"dy/{stream}") for stream in encoding.streams]
    return reads, [context.memory(f"x/{name}"), context.memory(f"residue/{name}")]


def emit_update_codes(context: Context, encoding: Encoding) -> None:
    """The engine adds what was sent to x^."""
    reads, writes = boundary_regions(context, encoding)
    descriptor = context.layout.address(f"descriptor/{encoding.name}")
    context.builder.emit("UPDATE_CODES", {"descriptor": descriptor}, reads, writes)


def emit_prepare(context: Context, encoding: Encoding) -> None:
    """The engine evaluates segments and corrections of this step from the state of the last."""
    name = encoding.name
    reads = [context.memory(f"x/{name}")]
    for stream in encoding.streams:
        reads += [context.memory(f"y/{stream}"), context.memory(f"sums/{stream}")]
    writes = [
        context.memory(f"{kind}/{name}") for kind in ("segments", "corrections", "gain", "residue")
    ]
    descriptor = context.layout.address(f"descriptor/{name}")
    context.builder.emit("PREPARE", {"descriptor": descriptor}, reads, writes)


def emit_source(context: Context, name: str, codes: Block) -> None:
    """Operands of a code source (network input, attention product) from all its codes."""
    planes = context.layout.operand_planes(name)
    context.operands[name] = allocate_source(context, name)
    emit_source_chunk(context, name, Chunk(0, planes), codes)


def allocate_source(context: Context, name: str) -> Block:
    """The operand of a code source."""
    layout = context.layout
    slack = layout.slack(layout.network.sources[name], layout.frames(name))
    return context.allocate("input", layout.operand_words(name) + slack, f"source '{name}'")


def emit_source_chunk(context: Context, name: str, chunk: Chunk, codes: Block) -> None:
    """Operands of some planes of a code source from their codes."""
    layout = context.layout
    source = layout.network.sources[name]
    first = chunk.first * layout.plane_words(source)
    operand = context.operands[name].part(first, codes.words)
    knobs = layout.network.knobs
    difference = context.phase == "delta"
    previous = codes
    if difference:
        previous = context.allocate("accumulator", codes.words, f"codes of '{name}'")
        context.load_raw(f"x/{name}", first, previous, 1, Traffic.CODES)
    context.builder.emit(
        "ENCODE_SOURCE",
        {
            "accumulator": codes.start, "words": codes.words, "planes": chunk.planes,
            "input": operand.start,
            "difference": int(difference), "previous": previous.start,
            "track": int(knobs.dataflow == "restore" or knobs.loop != "open"),
            "spill": int(knobs.overflow == "spill"),
            "lanes": context.lanes(source.channels, chunk),
            "source": layout.source_number[name],
        },
        reads=[codes, *([previous] if difference else [])],
        writes=[operand, codes],
    )  # fmt: skip
    if difference:
        context.free(previous)
    if context.keeps_state:
        context.store_raw(f"x/{name}", first, codes, 1, Traffic.CODES)
