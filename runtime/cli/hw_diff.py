"""`signmask hw diff`: where the RTL and the simulator first differ."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from signmask.hw.spec.container import Program
from signmask.runtime.cli import options
from signmask.runtime.cli.console import out, print_json, progress_bar

DIFFERENT = 1


def diff(
    program: options.ProgramFile,
    first: Annotated[int, typer.Option(help="Execute the first steps of the schedule.")] = 3,
    seed: options.Seed = 0,
    memory_latency: Annotated[
        int | None, typer.Option(help="Cycles from a request to its first beat, on the bus.")
    ] = None,
    stall_seed: Annotated[
        int | None, typer.Option(help="Stall all memory channels at random; compare results only.")
    ] = None,
    waves: Annotated[
        Path | None, typer.Option(help="Write a trace of all signals (FST) to this file.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Execute steps on RTL and simulator; name the first event, unit, cycle and element that
    differ. Exit code 1 if anything does."""
    from signmask.runtime.divergence import Lockstep
    from signmask.runtime.session import Session

    loaded = Program.load(program)
    if memory_latency is not None:
        config = replace(loaded.config, memory_latency=memory_latency)
        loaded = replace(loaded, config=config)
    both = Lockstep(loaded, stall_seed, waves)
    try:
        with progress_bar("executing on RTL and simulator") as progress:
            Session(loaded, both).sample(loaded.batch, seed, progress, first=first)
    finally:
        both.close()
    facts: dict[str, Any] = {
        "program": str(program), "steps": both.steps, "times_compared": stall_seed is None,
        "differences": both.differences,
    }  # fmt: skip
    if json:
        print_json(facts)
    elif not both.differences:
        times = "start, end, " if stall_seed is None else ""
        untimed = "" if stall_seed is None else "; under random stalls, times were not compared"
        out.print(
            f"{both.steps} steps: every {times}scratchpad write, memory byte and output of the "
            f"RTL is the simulator's{untimed}."
        )
    for text in [] if json else both.differences:
        out.print(text, markup=False, highlight=False)
    if both.differences:
        raise typer.Exit(DIFFERENT)
