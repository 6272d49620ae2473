"""One-line bugs in the RTL, each caught by a named test: `python -m tests.hw.planted_bugs`.

Every bug is planted in a copy of the sources, whose own test then has to fail. It takes minutes,
because each copy is compiled anew, so `make bugs` runs it and `make test` only checks that the
lines are there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).parents[2]
COPIED = ("hw", "compiler", "sim", "runtime", "reference", "signmask", "typings", "tests")
UNITS = "tests/hw/units"
CAUGHT = 1  # pytest's exit status when tests failed


class Bug(NamedTuple):
    """`line` of `file` (once in it) becomes `wrong`; `test` fails then."""

    file: str
    line: str
    wrong: str
    test: str


BUGS = (
    Bug(
        "hw/pe.py", "narrow << place * mix.digit_bits, shifted", "narrow << place, shifted",
        f"{UNITS}/array/test_pe.py::test_sums[nano]",
    ),
    Bug(
        "hw/outlier_selector.py", "self.place * mix.full_lanes + j + 1", "self.place + j + 1",
        f"{UNITS}/array/test_pe_array.py::test_random_instructions[columns half a group]",
    ),
    Bug(
        "hw/array_positions.py", "stride.y.eq(one_column & ~one_row)", "stride.y.eq(one_column)",
        f"{UNITS}/array/test_pe_array.py::test_random_instructions[columns half a group]",
    ),
    Bug(
        "hw/group_encoder.py", "more >= self.full_lanes", "more > self.full_lanes",
        f"{UNITS}/sfu/test_activation.py::test_group_encoder",
    ),
    Bug(
        "hw/sfu/encode_mask.py", "now.plane_end, now.last)", "now.last, now.last)",
        f"{UNITS}/sfu/test_sfu.py::test_random_instructions[groups of 8]",
    ),
    Bug(
        "hw/sfu/requantise.py",
        'Mux(f["has_sums"], ages[self.SUM_AGES].final, ages[self.AGES].final)',
        "ages[self.AGES].final",
        f"{UNITS}/sfu/test_sfu.py::test_random_instructions[groups of 8]",
    ),
    Bug(
        "hw/compressor.py", "m.d.sync += [outlier.eq(flags), count.eq(places[-1])]",
        "m.d.sync += [outlier.eq(flags), count.eq(places[-1] - 1)]",
        f"{UNITS}/dma/test_compression.py::test_compressor[8]",
    ),
    Bug(
        "hw/moments.py", "(self.epsilon - square)", "(0 - square)",
        f"{UNITS}/normalisation/test_normalisation.py::test_runs[8]",
    ),
    Bug(
        "hw/near_data/update_stream.py", "Mux(fresh, 0, target) + value", "target + value",
        f"{UNITS}/near_data/test_engine.py::test_random_instructions[narrow]",
    ),
    Bug(
        "hw/dma/requester.py", "address.eq(self.plane_address + self.plane_stride)",
        "address.eq(self.plane_address)", f"{UNITS}/dma/test_load.py::test_cycles[narrow-10]",
    ),
    Bug(
        "hw/dma/requester.py", "Mux(keys, shape.columns - 1, shape.lanes - 1)",
        "shape.columns - 1", f"{UNITS}/dma/test_load.py::test_cycles[narrow-10]",
    ),
    Bug(
        "hw/sfu/word_counter.py", "one = top >= self.frames", "one = top > self.frames",
        f"{UNITS}/sfu/test_word_counter.py::test_divider",
    ),
    Bug(
        "hw/sequencer.py", "left[source][target] - taken[target][source]", "left[source][target]",
        f"{UNITS}/sequencer/test_sequencer.py::test_cycles_equal_those_of_the_simulator",
    ),
    Bug(
        "hw/tally.py", "base = Mux(counted.bit_select(place, 1), old.data, 0)", "base = old.data",
        f"{UNITS}/control/test_control.py::test_counters_equal_those_of_the_simulator",
    ),
)  # fmt: skip


def plant(bug: Bug, folder: Path) -> None:
    """Copy the sources with the bug into an empty folder; raises ValueError unless its line is
    there exactly once."""
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, symlinks=True)
    shutil.copy(ROOT / "pyproject.toml", folder)
    path = folder / bug.file
    text = path.read_text(encoding="utf-8")
    if text.count(bug.line) != 1:
        raise ValueError(f"{bug.file} has {text.count(bug.line)} times '{bug.line}', not once.")
    path.write_text(text.replace(bug.line, bug.wrong), encoding="utf-8")


def verdict(bug: Bug) -> tuple[bool, str]:
    """(whether the test caught the bug, pytest's last line)."""
    with tempfile.TemporaryDirectory(prefix="signmask-bug-") as name:
        folder = Path(name)
        plant(bug, folder)
        # Packages of the copy come before the installed ones.
        words = [sys.executable, "-m", "pytest", "-q", "-x", "-o", "pythonpath=typings .", bug.test]
        ended = subprocess.run(
            words, cwd=folder, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(folder / "typings")},
        )  # fmt: skip
    lines = ended.stdout.strip().splitlines() or [f"pytest ended with status {ended.returncode}"]
    return ended.returncode == CAUGHT, lines[-1]


def main() -> int:
    """Print which bugs were caught; exit code 1 if one was not."""
    console, missed = Console(), 0
    table = Table("file", "right", "wrong", "test", "verdict")
    for bug in track(BUGS, "planted bugs", console=console):
        caught, line = verdict(bug)
        missed += not caught
        table.add_row(
            bug.file, bug.line, bug.wrong, bug.test.removeprefix(f"{UNITS}/"),
            "caught" if caught else f"MISSED: {line}",
        )  # fmt: skip
    console.print(table, markup=False)
    console.print(f"{len(BUGS) - missed} of {len(BUGS)} bugs were caught.")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
