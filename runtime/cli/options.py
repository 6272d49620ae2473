"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Model = Annotated[
    str,
    typer.Argument(help="Name that 'signmask models' lists, a .pt2 file, or a diffusers folder."),
]
Config = Annotated[
    str,
    typer.Option(
        help="Hardware: nano, edge, paper, large, or a .json file of HardwareConfig fields."
    ),
]
Steps = Annotated[int, typer.Option(help="Steps of the sampling schedule.")]
Images = Annotated[int, typer.Option(help="Images to sample.")]
Batch = Annotated[int, typer.Option(help="Images per batch of the program.")]
Seed = Annotated[int, typer.Option(help="Seed of the noise.")]
Backend = Annotated[
    str, typer.Option(help="reference or gpu (untimed), sim (cycle-level) or rtl (Verilator).")
]
Scheduler = Annotated[
    Path | None,
    typer.Option(help="scheduler_config.json of diffusers, in place of the model's own."),
]
Conditions = Annotated[
    Path | None,
    typer.Option(
        help="Safetensors file of text, class or image conditions by keyword, dotted where nested."
    ),
]
NoWeights = Annotated[
    bool,
    typer.Option(
        "--no-weights", help="Compile the named architecture alone: sizes and instructions."
    ),
]
CalibrationImages = Annotated[
    int, typer.Option(help="Trajectories sampled for statistics; 0: assume unit-normal tensors.")
]
ProgramFile = Annotated[Path, typer.Argument(help="Program that 'signmask compile' wrote.")]

InlierBits = Annotated[int | None, typer.Option(help="Width of an inlier delta: 3, 4 or 5.")]
FullLanes = Annotated[int | None, typer.Option(help="Outliers that a group can send at once.")]
Overflow = Annotated[str | None, typer.Option(help="Further outliers: clip or spill.")]
MaskBits = Annotated[int | None, typer.Option(help="2**bits activation segments: 1, 2 or 3.")]
Loop = Annotated[str | None, typer.Option(help="open, carry or closed.")]
CarryBits = Annotated[int | None, typer.Option(help="Residue bits of '--loop carry'.")]
Norm = Annotated[str | None, typer.Option(help="Norm constants: calibrated, trend or live.")]
GridBits = Annotated[int | None, typer.Option(help="State bits below a code's unit.")]
RefreshEvery = Annotated[int | None, typer.Option(help="Dense step every N steps; 0: never.")]
RefreshDrift = Annotated[
    float | None,
    typer.Option(help="Dense step after this share of segments changed; 0: never."),
]
