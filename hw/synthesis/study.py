"""Area and timing of a configuration: every unit, PEs of other lane mixes, and the overhead."""

from __future__ import annotations

import gc
import hashlib
import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from amaranth import UnusedElaboratable

from signmask.hw.emit import emit
from signmask.hw.simulation.runner import build_folder
from signmask.hw.spec.config import HardwareConfig
from signmask.hw.synthesis import tools
from signmask.hw.synthesis.netlist import Netlist, Part, synthesise
from signmask.hw.synthesis.overhead import overhead
from signmask.hw.synthesis.technology import Technology
from signmask.hw.synthesis.units import PAPER_LANES, Job, Mix, accelerator, lane_mixes, other_pes

Progress = Callable[[int, int, str], None]
TOP = "unit"


@dataclass(frozen=True)
class _Flow:
    """A library and a target, with which jobs are run; results are kept by what they depend on."""

    library: Technology
    period_ns: float
    folder: Path | None

    def run(self, job: Job) -> Netlist:
        design = emit(job.make(), TOP)
        code = [Path(__file__).with_name(name).read_text() for name in ("netlist.py", "verilog.py")]
        key = hashlib.sha256(
            repr(
                (
                    sorted(design.sources.items()), job.divide, job.keep, job.leave_out,
                    self.period_ns, code, tools.versions(), self.library.digest,
                )
            ).encode()
        ).hexdigest()[:24]  # fmt: skip
        kept = build_folder() / "synthesis" / f"{key}.json"
        if kept.is_file() and self.folder is None:
            return _load(kept)
        folder = self.folder and self.folder / job.name.replace(" ", "_")
        found = synthesise(
            design, self.library, self.period_ns, divide=job.divide, keep=job.keep,
            leave_out=job.leave_out, folder=folder,
        )  # fmt: skip
        _save(kept, found)
        return found


def study(
    config: HardwareConfig,
    library: Technology,
    period_ns: float,
    progress: Progress = lambda done, total, name: None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Synthesise everything; the result is JSON.

    Areas in um2, paths in ns. Results that were found before with the same Verilog, tools and
    library are taken from the cache, unless `folder` is to keep the files of the tools. Raises
    SynthesisError when a tool or the library is missing.
    """
    tools.require("yosys", "yosys-abc", "sta")
    flow = _Flow(library, period_ns, folder)
    jobs = [*accelerator(config), *other_pes(config)]
    sizes = dict.fromkeys(((config.group, config.full_lanes), (sum(PAPER_LANES), PAPER_LANES[1])))
    mixes = [(group, mix) for group, full in sizes for mix in lane_mixes(group, full)]
    total = len(jobs) + len(mixes)
    found: dict[str, Netlist] = {}
    for number, job in enumerate(jobs):
        progress(number, total, job.name)
        found[job.name] = flow.run(job)
    lanes = []
    for number, (group, mix) in enumerate(mixes, len(jobs)):
        progress(number, total, f"{mix.name}, {group} lanes")
        lanes.append(_lane(group, mix, flow.run(Job(mix.name, mix.make))))
    progress(total, total, "done")
    dense = {row["lanes"]: row["area_um2"] for row in lanes if row["name"] == "INT8 dense"}
    for row in lanes:
        row["relative_to_int8_dense"] = row["area_um2"] / dense[row["lanes"]]
    return {
        "config": config.to_json(),
        "technology": {
            "library": library.name, "nanometres": library.nanometres, "corner": library.corner,
            "source": library.source,
        },
        "tools": tools.versions(),
        "period_ns": period_ns,
        "units": [_unit(job, found[job.name]) for job in jobs],
        "scratchpad_bits": scratchpad_bits(config),
        "lane_mixes": lanes,
        "overhead": overhead(config, found),
    }  # fmt: skip


def scratchpad_bits(config: HardwareConfig) -> dict[str, int]:
    """Bits of each scratchpad."""
    from signmask.hw.datapath import Datapath

    with warnings.catch_warnings():
        # Amaranth warns of components that are made and never elaborated, when they are freed.
        warnings.simplefilter("ignore", UnusedElaboratable)
        found = {n: pad.depth * pad.width for n, pad in Datapath(config).scratchpads.items()}
        gc.collect()
    return found


def _unit(job: Job, netlist: Netlist) -> dict[str, Any]:
    return {
        "name": job.name,
        "note": job.note,
        **_part(netlist.top),
        "critical_path_ns": netlist.path_ns,
        "critical_path": netlist.path_kind,
        "parts": {name: _part(part) for name, part in netlist.parts.items()},
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "area_um2": part.area, "cells": part.cells, "flip_flops": part.registers,
        "sram_bits": part.memory_bits,
    }  # fmt: skip


def _lane(group: int, mix: Mix, netlist: Netlist) -> dict[str, Any]:
    return {
        "name": mix.name,
        "lanes": group,
        "narrow_lanes": mix.narrow_lanes,
        "full_lanes": mix.full_lanes,
        "area_um2": netlist.top.area,
        "area_per_lane_um2": netlist.top.area / (mix.narrow_lanes + mix.full_lanes),
        "cells": netlist.top.cells,
        "flip_flops": netlist.top.registers,
        "critical_path_ns": netlist.path_ns,
    }


def _save(path: Path, netlist: Netlist) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written whole under another name, so that a run cut short leaves nothing half-written.
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        json.dump(asdict(netlist), file)
    Path(file.name).replace(path)


def _load(path: Path) -> Netlist:
    data: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    parts = {name: Part(**part) for name, part in data["parts"].items()}
    return Netlist(**{**data, "top": Part(**data["top"]), "parts": parts})
