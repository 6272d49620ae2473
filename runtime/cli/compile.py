"""`signmask compile`: a model to a program file."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from signmask.hw.spec.config import resolve as resolve_config
from signmask.hw.spec.container import Program
from signmask.runtime.cli import options
from signmask.runtime.cli.console import compile_bar, out, print_json, print_table
from signmask.runtime.cli.layers import totals, totals_table
from signmask.runtime.files import check_file, write_whole


def compile_command(
    model: options.Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="Program file to write (.smk).")],
    config: options.Config = "nano",
    dataflow: Annotated[str, typer.Option(help="dense, restore or mask.")] = "mask",
    paper: Annotated[bool, typer.Option("--paper", help="Cambricon-D's own mask setting.")] = False,
    steps: options.Steps = 50,
    batch: options.Batch = 1,
    scheduler: options.Scheduler = None,
    conditions: options.Conditions = None,
    no_weights: options.NoWeights = False,
    calibration_images: options.CalibrationImages = 64,
    inlier_bits: options.InlierBits = None,
    full_lanes: options.FullLanes = None,
    overflow: options.Overflow = None,
    mask_bits: options.MaskBits = None,
    loop: options.Loop = None,
    carry_bits: options.CarryBits = None,
    norm: options.Norm = None,
    grid_bits: options.GridBits = None,
    refresh_every: options.RefreshEvery = None,
    refresh_drift: options.RefreshDrift = None,
    json: options.Json = False,
) -> None:
    """Compile a model to a program."""
    from signmask.runtime.build import build_program
    from signmask.runtime.presets import knobs_for
    from signmask.runtime.sources import resolve

    check_file(output, "-o")
    overrides = {
        "inlier_bits": inlier_bits, "full_lanes": full_lanes, "overflow": overflow,
        "mask_bits": mask_bits, "loop": loop, "carry_bits": carry_bits, "norm": norm,
        "grid_bits": grid_bits, "refresh_every": refresh_every, "refresh_drift": refresh_drift,
    }  # fmt: skip
    source = resolve(model, scheduler, conditions, not no_weights)
    knobs, hardware = knobs_for(dataflow, resolve_config(config), source.relu, paper, overrides)
    start = time.perf_counter()
    with compile_bar(f"compiling {model}") as progress:
        program = build_program(
            source, hardware, knobs, steps, batch, progress=progress, images=calibration_images
        )
    data = program.to_bytes()
    write_whole(output, data)
    facts = describe(program) | {
        "program": str(output),
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "seconds": round(time.perf_counter() - start, 3),
    }
    if json:
        print_json(facts)
        return
    out.print(
        f"{output}: {facts['model']}, {dataflow}{' (paper)' if paper else ''}, {steps} steps, "
        f"batch {batch}, config {hardware.name}; {facts['megamacs_per_step']:.1f} million "
        f"multiply-accumulates per step and image, {len(data) / 1e6:.2f} MB, "
        f"{facts['seconds']:.1f} s."
    )
    if program.report:
        print_table(totals_table(program.report))
    for note in facts["notes"]:
        out.print(f"Note: {note}")


def describe(program: Program) -> dict[str, Any]:
    """What a program is, in JSON's types."""
    network = program.network
    return {
        "model": network.name,
        "config": program.config.name,
        "hardware": program.config.to_json(),
        "dataflow": network.knobs.dataflow,
        "knobs": asdict(network.knobs),
        "steps": network.steps,
        "batch": program.batch,
        "megamacs_per_step": sum(linear.macs for linear in network.linears.values()) / 1e6,
        "layers": {
            "linear": len(network.linears),
            "encoding": len(network.encodings),
            "attention": len(network.attentions),
            "stream": len(network.streams),
        },
        "weights": network.info.get("weights", "int8"),
        "statistics": network.info.get("statistics", "measured"),
        "notes": notes(program),
        "totals": totals(program.report) if program.report else {},
        "instructions": {phase: len(code) for phase, code in program.code.items()},
        "source": dict(program.source),
        "scheduler": dict(program.scheduler),
    }


def notes(program: Program) -> list[str]:
    """What a reader of the program's figures must know, one sentence each."""
    info, found = program.network.info, []
    if info.get("weights") == "none":
        found.append("the program has no weights: sizes and instructions only, it cannot be run.")
    if "statistics" in info:
        found.append(
            f"no sample was taken: scales follow the assumed statistics '{info['statistics']}'."
        )
    if program.report:
        shares = program.report[0]["assumed_deltas"] if "delta" in program.code else ""
        found.append(
            "expected cycles are those of each layer's busiest queue, from the simulator's unit "
            "times" + (f" and the shares of wide differences '{shares}'." if shares else ".")
        )
    return found
