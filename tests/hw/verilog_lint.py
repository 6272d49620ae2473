"""Verilator's lint of emitted Verilog."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from signmask.hw.emit import VERILOG, Design
from signmask.hw.simulation.runner import tool_environment, tools, verilator_root

WAIVERS = VERILOG / "signmask.vlt"


def lint(design: Design) -> str:
    """Warnings of `verilator --lint-only -Wall`, less those that `signmask.vlt` waives; "" if none.

    Raises RtlError when Verilator is not installed.
    """
    tools()
    names = [name for name in design.sources if name.endswith((".v", ".sv"))]
    with tempfile.TemporaryDirectory(prefix="signmask-lint-") as folder:
        for name in names:
            (Path(folder) / name).write_text(design.sources[name], encoding="utf-8")
        ended = subprocess.run(
            [
                str(verilator_root() / "bin" / "verilator"), "--lint-only", "-Wall",
                "--top-module", design.top, str(WAIVERS), *names,
            ],
            cwd=folder, env={**os.environ, **tool_environment()}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
    return ended.stderr.strip()
