"""The whole accelerator with memory, emitted and compiled once per configuration."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from signmask.hw.emit import Design, Port, emit
from signmask.hw.simulation import runner
from signmask.hw.simulation.bench import bench
from signmask.hw.spec.config import NANO, HardwareConfig
from signmask.hw.spec.files import write_whole
from signmask.hw.top import Top

TOP = "signmask"
HARDWARE = Path(__file__).parents[1]
KEPT = 16  # designs
COVERED_LATENCY = 256
NOT_EMITTED = ("simulation", "synthesis")


def build_system(config: HardwareConfig, waves: bool = False) -> runner.Build:
    """The accelerator of a configuration in its test bench, compiled for speed of simulation.

    waves: with support for traces. Raises RtlError when a tool is missing, ConfigError for a
    configuration whose buses are no AXI buses.
    """
    runner.tools()
    # Latencies are the memory's; the accelerator's queues cover them up to a power of two.
    covered = max(COVERED_LATENCY, 1 << (config.memory_latency - 1).bit_length())
    config = replace(config, memory_latency=covered, near_data_latency=NANO.near_data_latency)
    design = bench(emitted(config), config)
    return runner.build(design, design.top, fast=True, waves=waves)


def emitted(config: HardwareConfig) -> Design:
    """The accelerator's Verilog, from the build folder if its sources have not changed."""
    key = f"{json.dumps(config.to_json(), sort_keys=True)} {version('amaranth')} {LOADED}"
    name = f"{TOP}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    folder = runner.build_folder() / "emitted"
    path = folder / f"{name}.json"
    with runner.locked(folder):
        if path.is_file():
            data = json.loads(path.read_text(encoding="utf-8"))
            ports = tuple(Port(**port) for port in data["ports"])
            return Design(data["top"], data["sources"], ports)
        design = emit(Top(config), TOP)
        write_whole(path, json.dumps(asdict(design)).encode())
        for old in sorted(folder.glob("*.json"), key=lambda p: -p.stat().st_mtime)[KEPT:]:
            old.unlink()
        return design


def _sources() -> str:
    """Hash of the files that describe the hardware."""
    digest = hashlib.sha256()
    for path in sorted(HARDWARE.rglob("*")):
        inside = path.relative_to(HARDWARE)
        if path.suffix in (".py", ".v") and inside.parts[0] not in NOT_EMITTED:
            digest.update(f"{inside} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


# Taken when the modules are loaded: sources that change under a running process are not its design.
LOADED = _sources()
