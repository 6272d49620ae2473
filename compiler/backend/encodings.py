"""Emission of layer boundaries: constants, activation, differencing, operands."""

from __future__ import annotations

from signmask.compiler.backend.context import Chunk, Context
from signmask.compiler.backend.layout import CORRECTION_WIDE_BYTES, delta_bytes
from signmask.compiler.backend.scratchpad import Block
from signmask.hw.spec.isa import LOOPS, MAX_PARTS, Traffic
from signmask.hw.spec.network import Encoding


class EncodingEmitter:
    """Emits one encoding part by part, so that parts can follow their producer chunk by chunk."""

    def __init__(self, context: Context, encoding: Encoding) -> None:
        self.context, self.encoding = context, encoding
        layout = context.layout
        self.words = layout.plane_words(encoding)
        self.part_planes = layout.encoding_planes(encoding)
        self.operand = context.allocate(
            "input", layout.operand_words(encoding.name), f"encoding '{encoding.name}'"
        )
        self.segments = context.load_parameters(f"segment_table/{encoding.name}", 3, 8)
        self.constants = self._gain() if context.masked else self._constants()

    def _gain(self) -> Block:
        """Gains A written by PREPARE."""
        images = self.context.layout.batch if self.encoding.norm else 1
        words = sum(self.part_planes) * images
        return self.context.load_parameters(f"gain/{self.encoding.name}", words, 4)

    def _constants(self) -> Block:
        """Constants A, B: live from the sums of this step, or fixed."""
        context, encoding = self.context, self.encoding
        planes = sum(self.part_planes)
        if not encoding.norm:
            return context.load_parameters(f"affine/{encoding.name}", 2 * planes, 8)
        block = context.allocate(
            "parameter", 2 * planes * context.layout.batch, f"constants of '{encoding.name}'"
        )
        sums = [context.sums[name] for name in encoding.streams]
        tables = {
            "record": context.load_parameters(
                f"norm_record/{encoding.name}", context.layout.record_words(), 8
            ),
            "gain": context.load_parameters(f"gain_table/{encoding.name}", planes, 8),
            "offset": context.load_parameters(f"offset/{encoding.name}", planes, 8),
        }
        fields = {name: table.start for name, table in tables.items()}
        fields["constants"] = block.start
        for part in range(MAX_PARTS):
            fields[f"sums_{part}"] = sums[part].start if part < len(sums) else 0
        context.builder.emit("CONSTANTS", fields, reads=[*sums, *tables.values()], writes=[block])
        for table in tables.values():
            context.free(table)
        return block

    def chunk(self, part: int, chunk: Chunk, source: Block) -> None:
        """Encode one chunk of a part from accumulator words `source` (y, or dy in a mask step)."""
        context, layout = self.context, self.context.layout
        stream = layout.network.streams[self.encoding.streams[part]]
        plane = sum(self.part_planes[:part]) + chunk.first
        offset, count = plane * self.words, chunk.planes * self.words
        operand = self.operand.part(offset, count)
        knobs = layout.network.knobs
        fields = {
            "accumulator": source.start, "words": count, "planes": chunk.planes,
            "images": layout.batch, "segments": self.segments.start,
            "shared_constants": int(self.encoding.norm is None),
            "z_shift": self.encoding.z_shift, "code_shift": self.encoding.code_shift,
            "input": operand.start, "spill": int(knobs.overflow == "spill"),
            "lanes": context.lanes(stream.channels, chunk),
            "source": layout.source_number[self.encoding.name],
        }  # fmt: skip
        if context.masked:
            self._masked(fields, source, operand, plane, chunk)
        else:
            self._raw(fields, source, operand, plane, count)

    def _raw(
        self, fields: dict[str, int], source: Block, operand: Block, plane: int, count: int
    ) -> None:
        context, encoding = self.context, self.encoding
        codes = context.allocate("accumulator", count, f"codes of '{encoding.name}'")
        first = plane * self.words
        if context.restoring:
            context.load_raw(f"x/{encoding.name}", first, codes, 1, Traffic.CODES)
        images = 1 if encoding.norm is None else context.layout.batch
        context.builder.emit(
            "ENCODE_RAW",
            fields
            | {
                "constants": self.constants.start + 2 * plane * images, "constants_stride": 2,
                "low": encoding.low, "high": encoding.high, "codes": codes.start,
                "difference": int(context.restoring), "previous": codes.start,
            },
            reads=[source, self.constants, self.segments, *([codes] if context.restoring else [])],
            writes=[operand, codes],
        )  # fmt: skip
        if context.keeps_state:
            entry = 2 if context.dataflow == "mask" else 1
            kind = Traffic.RAW if context.dataflow == "mask" else Traffic.CODES
            context.store_raw(f"x/{encoding.name}", first, codes, entry, kind)
        context.free(codes)

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
        images = 1 if encoding.norm is None else layout.batch
        context.builder.emit(
            "ENCODE_MASK",
            fields
            | {
                "gain": self.constants.start + plane * images, "mask": mask.start,
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
        for chunk in context.chunks(stream):
            with context.pinned([stream.name]):
                block, temporary = context.fetch(stream, chunk)
                self.chunk(part, chunk, block)
            if temporary:
                context.free(block)

    def finish(self) -> None:
        """All parts are encoded: the operand is ready, the engine may replay it."""
        context = self.context
        context.operands[self.encoding.name] = self.operand
        context.free(self.segments)
        context.free(self.constants)
        if context.masked:
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
    """Operands of a code source (network input, attention product) from its codes."""
    layout = context.layout
    source = layout.network.sources[name]
    operand = context.allocate("input", codes.words, f"source '{name}'")
    knobs = layout.network.knobs
    difference = context.phase == "delta"
    previous = codes
    if difference:
        previous = context.allocate("accumulator", codes.words, f"codes of '{name}'")
        context.load_raw(f"x/{name}", 0, previous, 1, Traffic.CODES)
    planes = layout.operand_planes(name)
    context.builder.emit(
        "ENCODE_SOURCE",
        {
            "accumulator": codes.start, "words": codes.words, "planes": planes,
            "input": operand.start,
            "difference": int(difference), "previous": previous.start,
            "track": int(knobs.dataflow == "restore" or knobs.loop != "open"),
            "spill": int(knobs.overflow == "spill"),
            "lanes": context.lanes(source.channels, Chunk(0, planes)),
            "source": layout.source_number[name],
        },
        reads=[codes, *([previous] if difference else [])],
        writes=[operand, codes],
    )  # fmt: skip
    if difference:
        context.free(previous)
    if context.keeps_state:
        context.store_raw(f"x/{name}", 0, codes, 1, Traffic.CODES)
    context.operands[name] = operand
