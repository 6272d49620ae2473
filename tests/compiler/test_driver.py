"""The compiler as one call: bytes do not depend on the process that compiles."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
import hashlib, sys
from signmask.compiler.driver import compile_model
from signmask.compiler.frontend import calibrate
from signmask.hw.spec.config import NANO
from signmask.hw.spec.network import Knobs
from signmask.reference.models.unet import scheduler
from tests.compiler.models import example, tiny

measured = calibrate(tiny(), scheduler(), 3, example(), images=2)
knobs = Knobs(dataflow=sys.argv[1])
program = compile_model(tiny(), NANO, knobs, 3, 1, scheduler(), measured, "tiny", example())
print(hashlib.sha256(program.to_bytes()).hexdigest())
"""


def compiled(dataflow: str, seed: str) -> str:
    """SHA-256 of a program compiled in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, dataflow],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()[-1]


def test_two_processes_give_the_same_bytes():
    mask = {compiled("mask", seed) for seed in ("1", "4242")}
    assert len(mask) == 1
    assert compiled("dense", "7") not in mask
