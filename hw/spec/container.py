"""The program container: JSON and safetensors in one versioned, checksummed file (`.smk`).

    8 bytes   magic "SIGNMASK"
    4 bytes   format version, little-endian
    8 bytes   length of the JSON header, then the header (UTF-8)
    8 bytes   length of the safetensors block, then the block
    32 bytes  SHA-256 of everything before it

Nothing is unpickled. Writing goes through a temporary file, so that no half-written program stays.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from signmask.hw.spec.config import ConfigError, HardwareConfig
from signmask.hw.spec.files import write_whole
from signmask.hw.spec.isa import INSTRUCTION_BYTES
from signmask.hw.spec.memory_map import MemoryMap
from signmask.hw.spec.network import Network
from signmask.hw.spec.network_check import check_fields, check_network, require

MAGIC = b"SIGNMASK"
VERSION = 3
LARGEST_BATCH = 1 << 12
LARGEST_ADDRESS = 1 << 40  # of the instructions' address fields
SOURCE_KINDS = ("bundled", "architecture", "export", "folder", "module")
SOURCE_KEYS = ("kind", "path", "sha256", "unfold", "conditions", "conditions_sha256")


class ProgramError(ValueError):
    """A program file that cannot be used; the message names the file, the cause and the remedy."""


@dataclass(frozen=True)
class Program:
    """A compiled model.

    tensors: the network's tensors by name, without the weights where `network.info` says that they
    are "none". code: instruction words by phase ("dense", "delta"),
    uint8 (instructions, isa.INSTRUCTION_BYTES). image: initial memory content, uint8, placed at
    address 0. memory_map: regions as `memory_map.Region` dictionaries. report: the compiler's
    per-layer table. source: where the fp32 model is found: kind (one of SOURCE_KINDS), path,
    sha256; unfold: pixels per side that the model folds into channels; its conditions' file and
    conditions_sha256, where it has any. scheduler: diffusers scheduler config of the sampler.
    """

    config: HardwareConfig
    network: Network
    tensors: Mapping[str, np.ndarray]
    batch: int
    code: Mapping[str, np.ndarray] = field(default_factory=dict)
    image: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint8))
    memory_map: tuple[dict[str, Any], ...] = ()
    report: tuple[dict[str, Any], ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)
    scheduler: Mapping[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The whole file; identical programs give identical bytes."""
        header = {
            "config": self.config.to_json(),
            "network": self.network.to_json(),
            "batch": self.batch,
            "memory_map": list(self.memory_map),
            "report": list(self.report),
            "source": dict(self.source),
            "scheduler": dict(self.scheduler),
        }
        tensors = {f"network/{k}": np.ascontiguousarray(v) for k, v in self.tensors.items()}
        tensors |= {f"code/{k}": np.ascontiguousarray(v) for k, v in self.code.items()}
        tensors["image"] = self.image
        text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        block = save_tensors(tensors)
        parts = [
            MAGIC + struct.pack("<IQ", VERSION, len(text)) + text + struct.pack("<Q", len(block)),
            block,
        ]
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        return b"".join([*parts, digest.digest()])

    def save(self, path: Path) -> None:
        """Write to `path` atomically; raises ProgramError if the folder cannot be written."""
        data = self.to_bytes()
        try:
            write_whole(path, data)
        except OSError as error:
            raise ProgramError(
                f"cannot write {path}: {error.strerror}; choose a folder that is writable."
            ) from None

    @classmethod
    def load(cls, path: Path) -> Program:
        """Read a program; raises ProgramError for a missing, truncated, altered or foreign file."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ProgramError(
                f"cannot read program {path}: {error.strerror}; check the path."
            ) from None
        return cls.from_bytes(data, str(path))

    @classmethod
    def from_bytes(cls, data: bytes, name: str = "program") -> Program:
        """Inverse of `to_bytes`; `name` is used in messages."""
        again = "compile it again with 'signmask compile'."
        if data[:8] != MAGIC:
            raise ProgramError(f"{name} is not a signmask program (wrong magic); {again}")
        if len(data) < 60:
            raise ProgramError(f"{name} is truncated at {len(data)} bytes; {again}")
        (version,) = struct.unpack_from("<I", data, 8)
        if version != VERSION:
            raise ProgramError(
                f"{name} has format version {version}, this signmask reads {VERSION}; {again}"
            )
        (text_length,) = struct.unpack_from("<Q", data, 12)
        at = 20 + text_length
        if at + 8 + 32 > len(data):
            raise ProgramError(f"{name} is truncated at {len(data)} bytes in its header; {again}")
        (block_length,) = struct.unpack_from("<Q", data, at)
        if at + 8 + block_length + 32 != len(data):
            raise ProgramError(
                f"{name} has {len(data)} bytes where its header states "
                f"{at + 8 + block_length + 32}; it is truncated or padded, {again}"
            )
        if hashlib.sha256(data[:-32]).digest() != data[-32:]:
            raise ProgramError(f"{name} fails its SHA-256 checksum (bytes were altered); {again}")
        try:
            header = json.loads(data[20:at])
            tensors = load_tensors(data[at + 8 : -32])
            program = cls(
                config=HardwareConfig.from_json(header["config"]),
                network=Network.from_json(header["network"]),
                tensors={k[8:]: v for k, v in tensors.items() if k.startswith("network/")},
                batch=header["batch"],
                code={k[5:]: v for k, v in tensors.items() if k.startswith("code/")},
                image=tensors["image"],
                memory_map=tuple(header["memory_map"]),
                report=tuple(header["report"]),
                source=header["source"],
                scheduler=header["scheduler"],
            )
            check_network(program.network, program.tensors)
            program.check()
        except ConfigError as error:
            raise ProgramError(f"{name}: {error}") from None
        except (LookupError, TypeError, ValueError, AttributeError, SafetensorError) as error:
            raise ProgramError(f"{name} is malformed ({error}); {again}") from None
        except (RecursionError, MemoryError):
            raise ProgramError(f"{name} is malformed (its header is too deep); {again}") from None
        return program

    def check(self) -> None:
        """Raise ValueError where configuration, network, code and memory contradict each other."""
        batch, knobs, config = self.batch, self.network.knobs, self.config
        whole = isinstance(batch, int) and not isinstance(batch, bool)
        require(whole and 1 <= batch <= LARGEST_BATCH, "batch", f"{batch!r} is no batch")
        for lanes in ("group", "full_lanes", "inlier_bits"):
            values = getattr(knobs, lanes), getattr(config, lanes)
            require(values[0] == values[1], lanes, f"{values[0]} quantised, {values[1]} in config")
        require(self.image.ndim == 1 and self.image.dtype == np.uint8, "image", "is no byte array")
        phases = {"dense"} if knobs.dataflow == "dense" else {"dense", "delta"}
        complete = not self.code or set(self.code) == phases
        require(complete, "code", f"phases {sorted(self.code)} instead of {sorted(phases)}")
        for phase, code in self.code.items():
            fits = code.ndim == 2 and code.dtype == np.uint8 and code.shape[1] == INSTRUCTION_BYTES
            require(fits, f"code '{phase}'", f"is {code.dtype} {code.shape}")
        for region in MemoryMap.from_json(self.memory_map):
            check_fields(region, f"memory region '{region.name}'")
            inside = region.address >= 0 and region.size >= 0
            inside = inside and region.address + region.size <= LARGEST_ADDRESS
            require(inside, f"memory region '{region.name}'", "lies outside memory")
        for name in ("source", "scheduler"):
            require(isinstance(getattr(self, name), dict), name, "is no table")
        self._check_source()
        for row in self.report:
            require(isinstance(row, dict), "report", f"{row!r} is no row")

    def _check_source(self) -> None:
        for key, value in self.source.items():
            require(key in SOURCE_KEYS, "source", f"has an unknown entry '{key}'")
            require(isinstance(value, str), f"source['{key}']", f"{value!r} is no string")
            require("\0" not in value, f"source['{key}']", "holds a zero byte")
        kind, unfold = self.source.get("kind", "module"), self.source.get("unfold", "1")
        require(kind in SOURCE_KINDS, "source['kind']", f"'{kind}' is no kind of source")
        channels = self.network.sources[self.network.input].real_channels
        whole = unfold.isascii() and unfold.isdigit() and len(unfold) < 4 and int(unfold) > 0
        fits = whole and channels % int(unfold) ** 2 == 0
        require(fits, "source['unfold']", f"'{unfold}' does not fold {channels} channels")
