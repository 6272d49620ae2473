"""Memory layout of a program: constant regions filled from the network, state regions reserved."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from signmask.compiler.backend.grouping import Run, channel_places, runs
from signmask.compiler.errors import CompileError
from signmask.compiler.synthetic import is_absent
from signmask.hw.spec import isa
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.memory_map import MemoryMap
from signmask.hw.spec.network import Attention, CodeSource, Encoding, Linear, Network, Stream

UNUSED_BREAK = 1 << 40
CORRECTION_WIDE_BYTES = 2
NORM_TABLES = (
    ("gain", "gain_table"), ("offset", "offset"), ("cal_a", "cal_a"), ("cal_b", "cal_b"),
)  # fmt: skip


def delta_bytes(words: int, group: int, inlier_bits: int) -> int:
    """Bytes of the fixed part (bitmap and inliers) of `words` compressed groups."""
    return words * group * (1 + inlier_bits) // 8


class Layout:
    """Sizes, regions and initial memory image of one compiled network."""

    def __init__(
        self,
        network: Network,
        tensors: Mapping[str, np.ndarray],
        config: HardwareConfig,
        batch: int,
    ) -> None:
        self.network, self.tensors, self.config, self.batch = network, tensors, config, batch
        self.group = config.group
        self.map = MemoryMap()
        self._content: dict[str, np.ndarray] = {}
        self._strides: dict[str, int] = {}
        self._frames = {a.out: a.frames for a in network.attentions.values()}
        names = sorted([*network.encodings, *network.sources])
        self.source_number = {name: i for i, name in enumerate(names)}
        self.factors = network.multiplied()
        self._runs: dict[str, tuple[Run, ...]] = {}
        self.stream_number = {name: i for i, name in enumerate(sorted(network.streams))}
        self._constants()
        self._state()

    def planes(self, channels: int) -> int:
        """Groups of channels that hold `channels`."""
        return -(-channels // self.group)

    def positions(self, item: Stream | Encoding | CodeSource) -> int:
        """Words of one plane of one image."""
        return item.height * item.width

    def plane_words(self, item: Stream | Encoding | CodeSource) -> int:
        """Words of one plane of the whole batch."""
        return self.batch * self.positions(item)

    def encoding_planes(self, encoding: Encoding) -> list[int]:
        """Planes of each concatenated stream."""
        return [self.planes(self.network.streams[s].channels) for s in encoding.streams]

    def operand_planes(self, source: str) -> int:
        """Planes of an encoding's or source's operand."""
        if source in self.network.encodings:
            return sum(self.encoding_planes(self.network.encodings[source]))
        return self.planes(self.network.sources[source].channels)

    def operand_words(self, source: str) -> int:
        """Input scratchpad words of an encoding or source."""
        return self.operand_planes(source) * self.plane_words(self.network.shape_of(source))

    def y_bytes(self, stream: Stream) -> int:
        """Bytes of one raw value in memory."""
        return stream.bits // 8

    def block_planes(self) -> int:
        """Planes that one column block fills (1 where a plane takes several blocks)."""
        return max(1, self.config.columns // self.group)

    def output_planes(self, channels: int) -> int:
        """Planes written for `channels` outputs: a whole number of column blocks."""
        step = self.block_planes()
        return -(-self.planes(channels) // step) * step

    def blocks(self, planes: int) -> int:
        """Column blocks of `planes` output planes."""
        return -(-planes * self.group // self.config.columns)

    def block_planes_of(self, blocks: int) -> int:
        """Planes that some column blocks, starting with a plane, fill or begin to fill."""
        return -(-blocks * self.config.columns // self.group)

    def parts(self, source: str) -> tuple[int, ...]:
        """Channels of the concatenated tensors of an encoding or source."""
        if source in self.network.encodings:
            streams = self.network.encodings[source].streams
            return tuple(self.network.streams[s].channels for s in streams)
        return (self.network.sources[source].channels,)

    def runs(self, linear: Linear) -> tuple[Run, ...]:
        """Column blocks of a linear operator by the planes that they read."""
        if linear.name not in self._runs:
            self._runs[linear.name] = runs(
                linear.out_channels, linear.groups, self.parts(linear.source), self.group,
                self.config.columns, self.blocks(self.output_planes(linear.out_channels)),
            )  # fmt: skip
        return self._runs[linear.name]

    def weight_words(self, linear: Linear) -> int:
        """Weight words of a linear operator in memory."""
        return linear.kernel**2 * sum(run.blocks * run.planes for run in self.runs(linear))

    def key_shape(self, attention: Attention) -> tuple[int, int]:
        """(rows, tokens) of keys and values: a row for each image; of constants one for all or for
        each of Network.images; over frames a row for each position of each video."""
        if attention.keys:
            rows, tokens, _ = self.tensors[attention.keys].shape
            return rows, tokens
        if attention.frames:
            positions = self.positions(self.network.streams[attention.q])
            return self.batch // attention.frames * positions, attention.frames
        return self.batch, self.positions(self.network.streams[attention.k])

    def frames(self, source: str) -> int:
        """Frames of a video whose positions follow each other frame by frame in the operand of a
        source, or 0 where an image's positions do: what attention over frames writes."""
        return self._frames.get(source, 0)

    def slack(self, item: Stream | Encoding | CodeSource, frames: int) -> int:
        """Words behind an operand that is read every so many words, from any of the first on."""
        return max(self.positions(item), frames) if frames else 0

    def table_images(self, stream: Stream) -> int:
        """Rows of a stream's table for one step and plane: one for each image, or one for all."""
        return self.batch if self.tensors[stream.table].ndim == 3 else 1

    def shares_constants(self, encoding: Encoding) -> bool:
        """Whether all images have the same constants A, B."""
        if encoding.norm is not None:
            return False
        return all(self.tensors[x].ndim < 3 for x in (encoding.affine_a, encoding.affine_b))

    def row_stride(self, region: str) -> int:
        """Bytes between the rows of a table of constants, 0 where one row serves all steps."""
        return self._strides.get(region, 0)

    def record_words(self) -> int:
        """Parameter words of a norm record."""
        return -(-len(isa.NORM_RECORD) // self.group)

    def normed_streams(self) -> set[str]:
        """Streams whose sums an encoding needs."""
        return {s for e in self.network.encodings.values() if e.norm for s in e.streams}

    def address(self, name: str) -> int:
        """Byte address of a region."""
        return self.map[name].address

    def image(self) -> np.ndarray:
        """Initial content of the constant regions, uint8."""
        end = max(
            (self.map[name].address + self.map[name].size for name in self._content), default=0
        )
        image = np.zeros(end, np.uint8)
        for name, array in self._content.items():
            data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
            start = self.map[name].address
            image[start : start + len(data)] = data
        return image

    def set_descriptor(self, name: str, fields: tuple[str, ...], values: dict[str, int]) -> None:
        """Fill a reserved descriptor region."""
        self._content[name] = isa.pack_descriptor(fields, values)

    def set_norm_record(self, name: str, values: dict[str, int]) -> None:
        """Fill the reserved norm record of an encoding, padded to whole parameter words."""
        record = np.zeros(self.record_words() * self.group, np.int64)
        picked = {key: values.get(key, 0) for key in isa.NORM_RECORD}
        record[: len(isa.NORM_RECORD)] = isa.pack_descriptor(isa.NORM_RECORD, picked)
        self._content[name] = record

    def _put_rows(self, name: str, array: np.ndarray, steps: bool) -> None:
        """A table of constants, (steps, ...) if `steps`."""
        self._put(name, "tables", array)
        if steps:
            self._strides[name] = array[0].nbytes

    def _put(self, name: str, kind: str, array: np.ndarray) -> None:
        self.map.allocate(name, kind, array.nbytes)
        self._content[name] = array

    def _pad(self, array: np.ndarray, planes: int, dtype: type) -> np.ndarray:
        """Last axis of channels zero-padded to planes*group."""
        out = np.zeros((*array.shape[:-1], planes * self.group), dtype)
        out[..., : array.shape[-1]] = array
        return out

    def _pad_parts(self, array: np.ndarray, encoding: Encoding, dtype: type) -> np.ndarray:
        """Channels of concatenated streams, each padded to whole planes."""
        pieces, at = [], 0
        for name in encoding.streams:
            channels = self.network.streams[name].channels
            pieces.append(self._pad(array[..., at : at + channels], self.planes(channels), dtype))
            at += channels
        return np.concatenate(pieces, axis=-1)

    def _constants(self) -> None:
        missing = []
        for linear in self.network.linears.values():
            if is_absent(self.tensors[linear.weight]):
                missing.append(linear)
            else:
                self._put(f"weights/{linear.name}", "weights", self._packed_weights(linear))
            if linear.out:
                planes = self.planes(linear.out_channels)
                multiplier = self._pad(self.tensors[linear.multiplier], planes, np.int16)
                images = self.table_images(self.network.streams[linear.out])
                words = multiplier.reshape(-1, self.group).repeat(images, axis=0)
                self._put(f"multiplier/{linear.name}", "tables", words)
        for stream in self.network.streams.values():
            planes = self.planes(stream.channels)
            table = self._pad(self.tensors[stream.table], planes, np.int32)
            self._put_rows(f"table/{stream.name}", self._by_plane(table), steps=True)
            self.map.allocate(f"descriptor/{stream.name}", "descriptor", 8 * len(isa.STREAM_FIELDS))
            self._content[f"descriptor/{stream.name}"] = np.zeros(0, np.uint8)
            if stream.offset:
                self._put(f"offset/{stream.name}", "tables", self._offset(stream))
        for encoding in self.network.encodings.values():
            self._encoding_constants(encoding)
        for attention in self.network.attentions.values():
            for key in filter(None, (attention.keys, attention.values)):
                self._put(f"codes/{key}", "tables", self._keys(self.tensors[key]))
        for linear in missing:  # behind all content, so that the image ends before them
            word = self.config.columns * self.group
            size = self.weight_words(linear) * word
            self.map.allocate(f"weights/{linear.name}", "weights", size)

    def _offset(self, stream: Stream) -> np.ndarray:
        """[plane][image][position][lane] int32 of a constant that varies over positions."""
        planes = self.planes(stream.channels)
        padded = self._pad(self.tensors[stream.offset], planes, np.int32)
        rows, positions, _ = padded.shape
        split = padded.reshape(rows, positions, planes, self.group).transpose(2, 0, 1, 3)
        return np.tile(split, (1, self.batch // rows, 1, 1))

    def _by_plane(self, table: np.ndarray) -> np.ndarray:
        """Padded constants (steps, channels) or (steps, images, channels) as (steps, words, n),
        [plane][image of the batch] with images."""
        words = table.reshape(*table.shape[:-1], -1, self.group)
        if table.ndim == 2:
            return words
        steps, rows, planes, _ = words.shape
        tiled = np.tile(words.swapaxes(1, 2), (1, 1, self.batch // rows, 1))
        return tiled.reshape(steps, planes * self.batch, self.group)

    def _keys(self, codes: np.ndarray) -> np.ndarray:
        """[plane][row][token][lane] int8 of constant keys or values."""
        rows, tokens, channels = codes.shape
        padded = self._pad(codes, self.planes(channels), np.int8)
        split = padded.reshape(rows, tokens, -1, self.group).transpose(2, 0, 1, 3)
        return np.ascontiguousarray(split)

    def _packed_weights(self, linear: Linear) -> np.ndarray:
        """[block][ky][kx][plane][column][lane] int8, operands padded like the parts; of a grouped
        operator the planes that the block reads."""
        weight = self.tensors[linear.weight]
        if linear.groups > 1:
            return np.concatenate(
                [self._packed_run(linear, weight, run).reshape(-1) for run in self.runs(linear)]
            )
        source = linear.source
        if source in self.network.encodings:
            padded = self._pad_parts(weight, self.network.encodings[source], np.int8)
        else:
            padded = self._pad(weight, self.operand_planes(source), np.int8)
        out, kernel = weight.shape[0], linear.kernel
        blocks = self.blocks(self.output_planes(out))
        full = np.zeros((blocks * self.config.columns, *padded.shape[1:]), np.int8)
        full[:out] = padded
        split = full.reshape(blocks, self.config.columns, kernel, kernel, -1, self.group)
        return np.ascontiguousarray(split.transpose(0, 2, 3, 4, 1, 5))

    def _packed_run(self, linear: Linear, weight: np.ndarray, run: Run) -> np.ndarray:
        """Weights of column blocks that read the same planes."""
        columns, kernel = self.config.columns, linear.kernel
        first = run.first * columns
        rows = weight[first : first + run.blocks * columns]
        full = np.zeros((run.blocks * columns, kernel, kernel, run.planes * self.group), np.int8)
        places = channel_places(self.parts(linear.source), self.group) - run.low * self.group
        inputs = weight.shape[3]
        group = (first + np.arange(len(rows))) // (linear.out_channels // linear.groups)
        index = places[group[:, None] * inputs + np.arange(inputs)]
        taps = np.broadcast_to(index[:, None, None], rows.shape)
        np.put_along_axis(full[: len(rows)], taps, rows, axis=3)
        split = full.reshape(run.blocks, columns, kernel, kernel, -1, self.group)
        return np.ascontiguousarray(split.transpose(0, 2, 3, 4, 1, 5))

    def _encoding_constants(self, encoding: Encoding) -> None:
        tensors = self.tensors
        words = np.zeros((3, self.group), np.int64)
        breaks = tensors[encoding.breaks]
        if len(tensors[encoding.slopes]) > 8:
            raise CompileError(
                f"encoding '{encoding.name}' has {len(tensors[encoding.slopes])} segments; the "
                "hardware takes 8 at most, lower mask_bits to 3."
            )
        words[0, :8] = UNUSED_BREAK
        words[0, : len(breaks)] = breaks
        for row, name in ((1, encoding.slopes), (2, encoding.intercepts)):
            words[row, : len(tensors[name])] = tensors[name]
        self._put(f"segment_table/{encoding.name}", "tables", words)
        if encoding.norm:
            norm = encoding.norm
            for key, region in NORM_TABLES:
                table = tensors[getattr(norm, key)]
                array = self._pad_parts(table, encoding, np.int64)
                rows = key in ("gain", "offset") and table.ndim == 2
                self._put_rows(f"{region}/{encoding.name}", array, rows)
            record = f"norm_record/{encoding.name}"
            self.map.allocate(record, "descriptor", 8 * self.record_words() * self.group)
            self._content[record] = np.zeros(0, np.uint8)
            for key in ("cal_mean", "cal_inverse", "cal_sigma"):
                self._put(
                    f"{key}/{encoding.name}", "tables",
                    tensors[getattr(norm, key)].astype(np.int64),
                )  # fmt: skip
        else:
            self._affine(encoding)
        name = f"descriptor/{encoding.name}"
        self.map.allocate(name, "descriptor", 8 * len(isa.BOUNDARY_FIELDS))
        self._content[name] = np.zeros(0, np.uint8)

    def _affine(self, encoding: Encoding) -> None:
        """Fixed constants: words A, B of each plane in turn, with images of each image of a plane,
        for ENCODE_RAW; those that masks know for the engine."""
        a, b = self.tensors[encoding.affine_a], self.tensors[encoding.affine_b]
        if {a.ndim, b.ndim} == {2, 3}:
            a, b = (x if x.ndim == 3 else x[:, None] for x in (a, b))
        a, b = (self._pad_parts(x, encoding, np.int64) for x in np.broadcast_arrays(a, b))
        pair = np.stack([self._by_plane(np.atleast_2d(x)) for x in (a, b)], axis=2)
        self._put_rows(f"affine/{encoding.name}", pair, a.ndim > 1)
        for key, table in (("cal_a", a), ("cal_b", b)):
            self._put(f"{key}/{encoding.name}", "tables", table)

    def _state(self) -> None:
        """Regions that steps write."""
        group, knobs = self.group, self.network.knobs
        source = self.network.sources[self.network.input]
        words = self.operand_words(source.name)
        self.map.allocate("input", "input", words * group)
        output = next(item for item in self.network.linears.values() if not item.out)
        self.map.allocate(
            "output",
            "output",
            self.output_planes(output.out_channels)
            * self.batch * output.out_height * output.out_width * group * 4,
        )  # fmt: skip
        for stream in self.network.streams.values():
            planes = self.planes(stream.channels)
            words = planes * self.plane_words(stream)
            self.map.allocate(f"y/{stream.name}", "state", words * group * self.y_bytes(stream))
            if knobs.dataflow == "mask":
                fixed = delta_bytes(words, group, stream.delta_bits)
                self.map.allocate(f"dy/{stream.name}", "delta", fixed)
                self.map.allocate(
                    f"dy_list/{stream.name}", "delta", words * group * self.y_bytes(stream)
                )
                self.map.allocate(f"sums/{stream.name}", "state", planes * self.batch * 16 * group)
        for attention in self.network.attentions.values():
            for name in attention.streams:
                stream = self.network.streams[name]
                words = self.planes(stream.channels) * self.plane_words(stream)
                self.map.allocate(f"codes/{name}", "codes", words * group)
        for name in self.network.sources:
            self.map.allocate(f"x/{name}", "state", self.operand_words(name) * group)
        for encoding in self.network.encodings.values():
            if encoding.name in self.factors:
                continue
            words = self.operand_words(encoding.name)
            if encoding.mode == "restore":
                self.map.allocate(f"x/{encoding.name}", "state", words * group)
            elif encoding.mode == "mask":
                self._mask_state(encoding, words)
        if knobs.dataflow == "restore":
            for linear in self.network.linears.values():
                if linear.out:
                    words = self.output_planes(linear.out_channels) * self.plane_words(
                        self.network.streams[linear.out]
                    )
                    self.map.allocate(f"accumulator/{linear.name}", "state", words * group * 4)

    def _mask_state(self, encoding: Encoding, words: int) -> None:
        knobs, group, name = self.network.knobs, self.group, encoding.name
        planes = sum(self.encoding_planes(encoding))
        self.map.allocate(f"x/{name}", "state", words * group * 2)
        bits = self.segment_bits(encoding)
        self.map.allocate(f"segments/{name}", "state", words * group * bits // 8)
        fixed = delta_bytes(words, group, knobs.inlier_bits)
        self.map.allocate(f"corrections/{name}", "delta", fixed)
        self.map.allocate(f"correction_list/{name}", "delta", words * group * CORRECTION_WIDE_BYTES)
        self.map.allocate(f"residue/{name}", "state", words * group * knobs.carry_bits // 8)
        images = self.batch if encoding.norm else 1
        self.map.allocate(f"gain/{name}", "state", planes * images * group * 4)

    def segment_bits(self, encoding: Encoding) -> int:
        """Bits of one segment index: 0 for an encoding without activation."""
        return (len(self.tensors[encoding.slopes]) - 1).bit_length()
