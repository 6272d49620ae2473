"""Memory layout of a program: constant regions filled from the network, state regions reserved."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from signmask.compiler.errors import CompileError
from signmask.hw.spec import isa
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.memory_map import MemoryMap
from signmask.hw.spec.network import CodeSource, Encoding, Linear, Network, Stream

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
        names = sorted([*network.encodings, *network.sources])
        self.source_number = {name: i for i, name in enumerate(names)}
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

    def linear_words(self, linear: Linear) -> int:
        """Weight words of one column block."""
        return linear.kernel**2 * self.operand_planes(linear.source)

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
        for linear in self.network.linears.values():
            self._put(f"weights/{linear.name}", "weights", self._packed_weights(linear))
            if linear.out:
                multiplier = self.tensors[linear.multiplier]
                planes = self.planes(linear.out_channels)
                self._put(
                    f"multiplier/{linear.name}", "tables", self._pad(multiplier, planes, np.int16)
                )
        for stream in self.network.streams.values():
            planes = self.planes(stream.channels)
            table = self._pad(self.tensors[stream.table], planes, np.int32)
            self._put(f"table/{stream.name}", "tables", table)
            self.map.allocate(f"descriptor/{stream.name}", "descriptor", 8 * len(isa.STREAM_FIELDS))
            self._content[f"descriptor/{stream.name}"] = np.zeros(0, np.uint8)
        for encoding in self.network.encodings.values():
            self._encoding_constants(encoding)

    def _packed_weights(self, linear: Linear) -> np.ndarray:
        """[block][ky][kx][plane][column][lane] int8, operands padded like the parts."""
        weight = self.tensors[linear.weight]
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
                array = self._pad_parts(tensors[getattr(norm, key)], encoding, np.int64)
                self._put(f"{region}/{encoding.name}", "tables", array)
            record = f"norm_record/{encoding.name}"
            self.map.allocate(record, "descriptor", 8 * self.record_words() * self.group)
            self._content[record] = np.zeros(0, np.uint8)
            for key in ("cal_mean", "cal_inverse", "cal_sigma"):
                self._put(
                    f"{key}/{encoding.name}", "tables",
                    tensors[getattr(norm, key)].astype(np.int64),
                )  # fmt: skip
        else:
            a = self._pad_parts(tensors[encoding.affine_a], encoding, np.int64)
            b = self._pad_parts(tensors[encoding.affine_b], encoding, np.int64)
            self._put(f"affine/{encoding.name}", "tables", self._interleave(a, b))
            self._put(f"cal_a/{encoding.name}", "tables", a)
            self._put(f"cal_b/{encoding.name}", "tables", b)
        name = f"descriptor/{encoding.name}"
        self.map.allocate(name, "descriptor", 8 * len(isa.BOUNDARY_FIELDS))
        self._content[name] = np.zeros(0, np.uint8)

    def _interleave(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Words A, B of each plane in turn."""
        return np.stack([a.reshape(-1, self.group), b.reshape(-1, self.group)], axis=1)

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
            for name in (attention.q, attention.k, attention.v):
                stream = self.network.streams[name]
                words = self.planes(stream.channels) * self.plane_words(stream)
                self.map.allocate(f"codes/{name}", "codes", words * group)
        for name in self.network.sources:
            self.map.allocate(f"x/{name}", "state", self.operand_words(name) * group)
        for encoding in self.network.encodings.values():
            words = self.operand_words(encoding.name)
            if knobs.dataflow == "restore":
                self.map.allocate(f"x/{encoding.name}", "state", words * group)
            elif knobs.dataflow == "mask":
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
