"""What the emission of one phase keeps track of: instructions, scratchpads, resident tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from signmask.compiler.backend.builder import ProgramBuilder
from signmask.compiler.backend.layout import Layout, delta_bytes
from signmask.compiler.backend.scratchpad import Block, Scratchpad
from signmask.compiler.errors import CompileError
from signmask.hw.spec.isa import Step, Traffic
from signmask.hw.spec.network import Stream

Phase = Literal["dense", "delta"]
CHUNK_WORDS = 64  # smallest piece of a layer that is worth an instruction of its own


@dataclass(frozen=True)
class Chunk:
    """Planes [first, first + planes) of a stream, processed by one set of instructions."""

    first: int
    planes: int


@dataclass
class Context:
    """State of the emission of one phase of one program."""

    layout: Layout
    phase: Phase
    must_store: frozenset[str]  # streams that need a copy in memory (dense and restore)
    builder: ProgramBuilder = field(default_factory=ProgramBuilder)
    resident: dict[str, Block] = field(default_factory=dict)
    operands: dict[str, Block] = field(default_factory=dict)
    sums: dict[str, Block] = field(default_factory=dict)
    evicted: set[str] = field(default_factory=set)
    next_use: dict[str, list[int]] = field(default_factory=dict)
    position: int = 0
    _pins: frozenset[str] = frozenset()
    _pending: list[tuple[dict[str, int], Block, Block]] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.layout.config
        self.pads = {
            "input": Scratchpad("input", config.input_words),
            "weight": Scratchpad("weight", config.weight_words),
            "accumulator": Scratchpad("accumulator", config.accumulator_words),
            "mask": Scratchpad("mask", config.mask_words),
            "parameter": Scratchpad("parameter", config.parameter_words),
            "row": Scratchpad("row", config.row_words),
        }

    @property
    def dataflow(self) -> str:
        """The program's dataflow preset."""
        return self.layout.network.knobs.dataflow

    @property
    def masked(self) -> bool:
        """This phase works on deltas of streams."""
        return self.phase == "delta" and self.dataflow == "mask"

    @property
    def restoring(self) -> bool:
        """This phase adds delta accumulators to those of the last step."""
        return self.phase == "delta" and self.dataflow == "restore"

    @property
    def keeps_state(self) -> bool:
        """A differential step may follow."""
        return self.dataflow != "dense"

    def allocate(self, space: str, words: int, what: str) -> Block:
        """A scratchpad block; evicts resident streams; raises CompileError where nothing helps."""
        pad = self.pads[space]
        while (block := pad.allocate(words)) is None:
            if space != "accumulator" or not self._evict():
                raise CompileError(
                    f"{what} needs {words} words of the {space} scratchpad of config "
                    f"'{self.layout.config.name}' and at most {pad.largest_gap()} of {pad.words} "
                    f"are free; lower --batch (now {self.layout.batch}) or raise {space}_words."
                )
        return block

    def obtainable(self, space: str) -> int:
        """Words of the largest block that `allocate` could give: streams that may leave the
        accumulator scratchpad count as gone."""
        pad = self.pads[space]
        if space != "accumulator":
            return pad.largest_gap()
        leaving = [
            block
            for name, block in self.resident.items()
            if self.next_use[name] and name not in self._pins
        ]
        return pad.largest_gap(leaving)

    def try_resident(self, name: str, words: int) -> Block | None:
        """A block for a whole stream, or None (the stream goes through memory) where it would take
        more than half of the scratchpad or what is pinned leaves no room."""
        pad = self.pads["accumulator"]
        if 2 * words <= pad.words:
            while (block := pad.allocate(words)) is None:
                if not self._evict():
                    break
            if block is not None:
                return block
        if self.next_use[name]:
            self.evicted.add(name)
        return None

    @contextmanager
    def pinned(self, names: Iterable[str]) -> Iterator[None]:
        """Keep these streams resident while their words are being used."""
        before = self._pins
        self._pins = before | frozenset(names)
        try:
            yield
        finally:
            self._pins = before

    def free(self, block: Block) -> None:
        """Give a block back after its last use was emitted."""
        self.pads[block.space].free(block)

    def _evict(self) -> bool:
        """Drop the resident stream whose next use is farthest; False if none may be dropped."""
        candidates = [
            (self.next_use[name][0], name)
            for name in self.resident
            if self.next_use[name] and name not in self._pins
        ]
        if not candidates:
            return False
        name = max(candidates)[1]
        self.evicted.add(name)
        self.free(self.resident.pop(name))
        return True

    def used(self, name: str, position: int) -> None:
        """One use of a stream, planned for `position`, has been emitted."""
        uses = self.next_use[name]
        uses.remove(position)
        if not uses and name in self.resident:
            self.free(self.resident.pop(name))

    def advance(self, position: int) -> None:
        """Go on to plan entry `position`; streams without a later use leave the scratchpad."""
        self.position = position
        for name, uses in self.next_use.items():
            while uses and uses[0] < position:
                uses.pop(0)
            if not uses and name in self.resident:
                self.free(self.resident.pop(name))

    def chunks(self, stream: Stream) -> list[Chunk]:
        """The pieces in which a stream is produced, stored and compressed."""
        layout = self.layout
        step = layout.block_planes()
        words = layout.plane_words(stream)
        size = step
        planes = layout.planes(stream.channels)
        while size * words < CHUNK_WORDS and size < planes:
            size += step
        return [Chunk(at, min(size, planes - at)) for at in range(0, planes, size)]

    def lanes(self, channels: int, chunk: Chunk) -> int:
        """Valid channels in the last plane of a chunk."""
        group = self.layout.group
        return min(group, channels - (chunk.first + chunk.planes - 1) * group)

    def memory(self, region: str, offset: int = 0, size: int | None = None) -> Block:
        """Bytes of a memory region, for dependencies."""
        whole = self.layout.map[region].size
        return Block(f"memory/{region}", offset, whole - offset if size is None else size)

    def load_parameters(
        self, region: str, words: int, entry_bytes: int, step: Step = Step.NONE, stride: int = 0
    ) -> Block:
        """Load table words into a new parameter block."""
        block = self.allocate("parameter", words, f"table {region}")
        self.builder.emit(
            "LOAD_PARAMETERS",
            {
                "address": self.layout.address(region), "stride": stride, "step": step,
                "words": words, "entry_bytes": entry_bytes, "parameter": block.start,
            },
            reads=[self.memory(region)],
            writes=[block],
        )  # fmt: skip
        return block

    def load_rows(self, region: str, words: int) -> Block:
        """Load 8-byte constants that may have a row for each step."""
        stride = self.layout.row_stride(region)
        return self.load_parameters(region, words, 8, Step.NOW if stride else Step.NONE, stride)

    def load_raw(
        self, region: str, first_word: int, target: Block, entry_bytes: int, kind: Traffic
    ) -> None:
        """Load words of raw integers of a region into an accumulator block."""
        offset = first_word * self.layout.group * entry_bytes
        size = target.words * self.layout.group * entry_bytes
        self.builder.emit(
            "LOAD_RAW",
            {
                "address": self.layout.address(region) + offset, "words": target.words,
                "entry_bytes": entry_bytes, "accumulator": target.start, "kind": kind,
            },
            reads=[self.memory(region, offset, size)],
            writes=[target],
        )  # fmt: skip

    def store_raw(
        self, region: str, first_word: int, block: Block, entry_bytes: int, kind: Traffic
    ) -> None:
        """Store accumulator words as raw integers."""
        offset = first_word * self.layout.group * entry_bytes
        size = block.words * self.layout.group * entry_bytes
        self.builder.emit(
            "STORE_RAW",
            {
                "address": self.layout.address(region) + offset, "words": block.words,
                "entry_bytes": entry_bytes, "accumulator": block.start, "kind": kind,
            },
            reads=[block],
            writes=[self.memory(region, offset, size)],
        )  # fmt: skip

    def delta_location(self, stream: Stream, chunk: Chunk) -> tuple[dict[str, int], Block]:
        """Address fields of a chunk's compressed dy and its bytes for dependencies."""
        layout = self.layout
        words = layout.plane_words(stream)
        first, count = chunk.first * words, chunk.planes * words
        offset = delta_bytes(first, layout.group, stream.delta_bits)
        region = f"dy/{stream.name}"
        fields = {
            "address": layout.address(region) + offset,
            "list": layout.address(f"dy_list/{stream.name}")
            + first * layout.group * layout.y_bytes(stream),
            "words": count,
            "inlier_bits": stream.delta_bits,
            "wide_bytes": layout.y_bytes(stream),
        }
        size = delta_bytes(count, layout.group, stream.delta_bits)
        return fields, self.memory(region, offset, size)

    def load_deltas(
        self, fields: dict[str, int], source: Block, target: Block, kind: Traffic
    ) -> None:
        """Load compressed deltas, less their outliers, which `load_outliers` adds: the list's
        length is known when the bitmaps are there, and other loads fill the time until then."""
        room = self.layout.config.bitmap_words
        if target.words > room:
            raise CompileError(
                f"{target.words} compressed words are loaded at once and config "
                f"'{self.layout.config.name}' keeps the bitmaps of {room}; lower --batch (now "
                f"{self.layout.batch}) or raise bitmap_words."
            )
        self.load_outliers(limit=room - target.words)
        to_mask = int(target.space == "mask")
        self.builder.emit(
            "LOAD_DELTAS",
            fields | {"to_mask": to_mask, "buffer": target.start, "kind": kind},
            reads=[source],
            writes=[target],
        )
        wide = {
            "list": fields["list"], "words": target.words, "wide_bytes": fields["wide_bytes"],
            "to_mask": to_mask, "buffer": target.start, "kind": kind,
        }  # fmt: skip
        self._pending.append((wide, source, target))

    def load_outliers(self, limit: int) -> None:
        """Load outliers of the oldest deltas until those of at most `limit` words are missing."""
        while sum(target.words for _, _, target in self._pending) > limit:
            fields, source, target = self._pending.pop(0)
            self.builder.emit("LOAD_OUTLIERS", fields, reads=[source, target], writes=[target])

    def raw_resident(self, stream: Stream) -> bool:
        """Whether y of a stream is in the accumulator scratchpad."""
        return not self.masked and stream.name in self.resident

    def fetch(self, stream: Stream, chunk: Chunk, raw: bool = False) -> tuple[Block, bool]:
        """Accumulator words of a chunk (in a mask step dy, or y if `raw`; else y): resident, or
        loaded into a temporary block (True) that the caller frees."""
        words = self.layout.plane_words(stream)
        if stream.name in self.resident and not (raw and self.masked):
            block = self.resident[stream.name]
            return block.part(chunk.first * words, chunk.planes * words), False
        target = self.allocate(
            "accumulator", chunk.planes * words, f"stream '{stream.name}' read again"
        )
        if self.masked and not raw:
            fields, source = self.delta_location(stream, chunk)
            self.load_deltas(fields, source, target, Traffic.SPILLS)
            self.load_outliers(limit=0)
        else:
            self.load_raw(
                f"y/{stream.name}", chunk.first * words, target,
                self.layout.y_bytes(stream), Traffic.RAW,
            )  # fmt: skip
        return target, True
