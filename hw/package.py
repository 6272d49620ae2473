"""Everything that is emitted for a configuration: Verilog files, lint waivers and a manifest."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import Any

from signmask.hw.axi import MAX_BEAT_BYTES
from signmask.hw.emit import VERILOG, Design, emit
from signmask.hw.near_data.engine import NearDataEngine
from signmask.hw.pe import LaneMix, Pe
from signmask.hw.register_map import register_map
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.top import Top

MANIFEST = "manifest.json"
WAIVERS = "signmask.vlt"
TOP, ENGINE = "signmask", "signmask_near_data_engine"
ENGINE_BYTES = MAX_BEAT_BYTES


def designs(config: HardwareConfig) -> tuple[Design, ...]:
    """The accelerator; or, where a bus is no AXI bus (paper), one PE and one near-data engine of
    ENGINE_BYTES, of which as many work side by side as fill the bus."""
    if whole(config):
        return (emit(Top(config), TOP),)
    mix = LaneMix.of(config)
    slice_ = replace(config, near_data_bytes=min(ENGINE_BYTES, config.near_data_bytes))
    return emit(Pe(mix), mix.module), emit(NearDataEngine(slice_), ENGINE)


def whole(config: HardwareConfig) -> bool:
    """Whether both buses have a width of AXI4: a power of two, at most MAX_BEAT_BYTES."""
    widths = (config.axi_bytes, config.near_data_bytes)
    return all(not width & (width - 1) and width <= MAX_BEAT_BYTES for width in widths)


def instances(config: HardwareConfig, module: str) -> int:
    """How many of an emitted module the configuration has."""
    if module == TOP:
        return 1
    if module == ENGINE:
        return -(-config.near_data_bytes // ENGINE_BYTES)
    return config.rows * config.columns


def package(config: HardwareConfig) -> dict[str, str]:
    """Text by file name. Raises EmitError or ConfigError for what cannot be built."""
    emitted = designs(config)
    files: dict[str, str] = {}
    for design in emitted:
        files |= design.sources
    files[WAIVERS] = (VERILOG / WAIVERS).read_text(encoding="utf-8")
    manifest: dict[str, Any] = {
        "generator": {"signmask": version("signmask"), "amaranth": version("amaranth")},
        "config": config.to_json(),
        "complete": whole(config),
        "modules": [
            {
                "name": design.top,
                "instances": instances(config, design.top),
                "files": list(design.sources),
                "ports": [asdict(port) for port in design.ports],
            }
            for design in emitted
        ],
        "registers": register_map(config).to_json() if whole(config) else None,
        "files": {
            name: {
                "bytes": len(text.encode()),
                "sha256": hashlib.sha256(text.encode()).hexdigest(),
            }
            for name, text in sorted(files.items())
        },
    }
    return {**dict(sorted(files.items())), MANIFEST: json.dumps(manifest, indent=2) + "\n"}
