"""Runs yosys and OpenSTA."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from signmask.hw.synthesis.errors import SynthesisError

LOG_LINES = 15
PACKAGES = {"yosys": "yosys", "yosys-abc": "yosys", "sta": "opensta"}


def require(*names: str) -> None:
    """Raise SynthesisError unless these programs are on PATH."""
    for name in names:
        if shutil.which(name) is None:
            package = PACKAGES[name]
            raise SynthesisError(
                f"the program '{name}' is not on PATH; install it with 'apt-get install {package}'."
            )


@cache
def versions() -> dict[str, str]:
    """Version of each tool of the flow; raises SynthesisError for one that is missing."""
    require(*PACKAGES)
    found = run(["yosys", "-V"], Path.cwd()).split("(")[0].strip()
    return {"yosys": found, "opensta": run(["sta", "-version"], Path.cwd()).strip()}


def run(command: Sequence[str], folder: Path) -> str:
    """Standard output of a tool that runs in `folder`.

    Raises SynthesisError with the end of what it said when it fails.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace")
    said = done.stdout + done.stderr
    if done.returncode:
        end = "\n".join(said.strip().splitlines()[-LOG_LINES:])
        raise SynthesisError(
            f"{command[0]} failed with exit code {done.returncode} in {folder}; it said:\n{end}"
        )
    return done.stdout
