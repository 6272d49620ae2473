"""A bug planted in either backend breaks the equality of their hashes.

Each case copies the package, changes one line of it, and runs a compiled program in a process that
imports the copy. A case that left the hash alone would mean that the comparison is blind to that
line.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from signmask.compiler.backend.lower import lower
from signmask.hw.spec.config import NANO
from signmask.hw.spec.network import Knobs
from tests.tiny_networks import input_codes, unet

ROOT = Path(__file__).parents[2]
FOLDERS = ("hw", "compiler", "sim", "runtime", "reference")
BATCH = 2
REFRESH = 3  # this step is dense again
STALL_SECONDS = 300

# Arguments: backend, program, input codes, then package trees. Each tree is imported afresh in one
# process, because importing torch takes longer than running the program.
RUNNER = """
import hashlib, json, sys, warnings
from pathlib import Path
import numpy as np

backend, program, codes, *trees = sys.argv[1:]
warnings.simplefilter("ignore", RuntimeWarning)
codes = np.load(codes)
results = {}
for tree in trees:
    for name in [n for n in sys.modules if n.split(".")[0] == "signmask"]:
        del sys.modules[name]
    sys.path[0] = tree
    sys.path_importer_cache.clear()
    import signmask
    assert Path(signmask.__file__).is_relative_to(tree), signmask.__file__
    from signmask.hw.spec.container import Program
    from signmask.runtime.backend import open_backend
    loaded = Program.load(Path(program))
    try:
        machine = open_backend(backend, loaded)
        home = Path(sys.modules[type(machine).__module__].__file__)
        assert home.is_relative_to(tree), home
        digest = hashlib.sha256()
        for index in range(loaded.network.steps):
            step = machine.dense_step if index in (0, REFRESH) else machine.delta_step
            digest.update(step(index, codes[index]).accumulators.tobytes())
        results[tree] = digest.hexdigest()
    except Exception as error:
        results[tree] = f"{type(error).__name__}: {error}"
print(json.dumps(results))
""".replace("REFRESH", str(REFRESH))


class Bug(NamedTuple):
    """`old` occurs exactly once in `file`, within one line, and becomes `new`."""

    name: str
    file: str
    old: str
    new: str


SIM_BUGS = (
    Bug("half rounds down", "sim/arithmetic.py",
        "rounded = value + (1 << (shift - 1))", "rounded = value + (1 << (shift - 1)) - 1"),
    Bug("wide by one", "sim/arithmetic.py",
        "return np.minimum(np.maximum(value, -high - 1), high)",
        "return np.minimum(np.maximum(value, -high - 2), high)"),
    Bug("trend backwards", "sim/arithmetic.py",
        "mean + mean_now - mean_last", "mean + mean_last - mean_now"),
    Bug("segment beyond the break", "sim/arithmetic.py",
        "if edge <= _Z_HIGH:", "if edge < 0:"),
    Bug("softmax flattened", "sim/arithmetic.py",
        "requantise(below, multiplier, shift)", "requantise(below, multiplier, shift + 1)"),
    Bug("one lane more", "sim/outlier_selector.py",
        "np.cumsum(dense, axis=-1) > self.full_lanes",
        "np.cumsum(dense, axis=-1) > self.full_lanes + 1"),
    Bug("rightmost outliers", "sim/outlier_selector.py",
        "np.cumsum(dense, axis=-1)", "np.cumsum(dense[:, ::-1], axis=-1)[:, ::-1]"),
    Bug("bitmap lanes reversed", "sim/compressor.py",
        'bitmap = np.packbits(outlier, axis=-1, bitorder="little")',
        'bitmap = np.packbits(outlier, axis=-1, bitorder="big")'),
    Bug("x^ not updated", "sim/near_data_engine.py",
        'self._write(d["x_hat"], x_hat + sent)', 'self._write(d["x_hat"], x_hat)'),
    Bug("squares not shifted", "sim/near_data_engine.py",
        'shifted = (y >> d["stat_shift"]).reshape(shape)',
        'shifted = (y >> d["stat_shift"] + 1).reshape(shape)'),
    Bug("correction subtracted", "sim/activation.py",
        "change += correction", "change -= correction"),
    Bug("residual subtracted", "sim/sfu.py",
        'value += core.accumulator.read(f["add"], words)',
        'value -= core.accumulator.read(f["add"], words)'),
    Bug("time table kept", "sim/sfu.py",
        'value -= core.parameter.read(f["last"], planes)',
        'value -= core.parameter.read(f["now"], planes)'),
    Bug("zero inside the border", "sim/pe_array.py",
        'region[-1] = 0 if f["delta"] else f["zero"]', "region[-1] = 0"),
    Bug("wrong step register", "sim/dma.py",
        'f["stride"] * core.register(f["step"])', 'f["stride"] * (core.register(f["step"]) // 2)'),
)  # fmt: skip

REFERENCE_BUGS = (
    Bug("half rounds down", "reference/arithmetic.py",
        "return (value >> (bounded - 1)).bitwise_and_(1).add_(value >> bounded)",
        "return value >> bounded"),
    Bug("wide by one", "reference/arithmetic.py",
        "return value.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)",
        "return value.clamp(-(1 << (bits - 1)) - 1, (1 << (bits - 1)) - 1)"),
    Bug("trend backwards", "reference/arithmetic.py",
        "mean + mean_now - mean_last", "mean + mean_last - mean_now"),
    Bug("one lane fewer", "reference/arithmetic.py",
        "(outliers.cumsum(-1) > full_lanes)", "(outliers.cumsum(-1) >= full_lanes)"),
    Bug("INT range symmetric", "reference/arithmetic.py",
        "low, high = -(1 << (inlier_bits - 1)), (1 << (inlier_bits - 1)) - 1",
        "low, high = 1 - (1 << (inlier_bits - 1)), (1 << (inlier_bits - 1)) - 1"),
    Bug("softmax flattened", "reference/arithmetic.py",
        "requantise(top - scores, multiplier, shift)",
        "requantise(top - scores, multiplier, shift + 1)"),
    Bug("x^ of what was meant", "reference/steps.py",
        "self.next.sent[name] = sent_last + sent.deltas",
        "self.next.sent[name] = sent_last + deltas"),
    Bug("correction subtracted", "reference/steps.py",
        "deltas = deltas + correction", "deltas = deltas - correction"),
    Bug("constants of the last step", "reference/steps.py",
        "z = operator.pre_activation(y_last, now if closed else last)",
        "z = operator.pre_activation(y_last, last)"),
    Bug("residual twice", "reference/steps.py",
        "total = total + self.change(addend).reshape(shape)",
        "total = total + 2 * self.change(addend).reshape(shape)"),
    Bug("time table kept", "reference/steps.py",
        "total = (table[self.index] - table[self.state.last]).expand(shape)",
        "total = (table[self.index] - table[self.index]).expand(shape)"),
    Bug("border of zeros", "reference/linear.py", "value=float(pad)", "value=0.0"),
    Bug("groups across streams", "reference/delta_encoder.py",
        "width += -(-size // group) * group", "width += size"),
    Bug("intercept of one segment", "reference/encoding.py",
        "intercept = self._entry(self.intercepts, segments)", "intercept = self.intercepts[0]"),
)  # fmt: skip


def copy_package(folder: Path, bug: Bug | None) -> Path:
    """The package's Python files as a plain tree under `folder`, with the bug in it."""
    package = folder / "signmask"
    for name in FOLDERS:
        for source in (ROOT / name).rglob("*.py"):
            target = package / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    shutil.copyfile(ROOT / "signmask" / "__init__.py", package / "__init__.py")
    if bug is not None:
        path = package / bug.file
        text = path.read_text()
        assert text.count(bug.old) == 1 and "\n" not in bug.old, f"'{bug.name}' has no one place"
        path.write_text(text.replace(bug.old, bug.new))
    return folder


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a compiled program whose masks clip, and its input codes."""
    folder = tmp_path_factory.mktemp("planted")
    network, tensors = unet(knobs=Knobs(overflow="clip"), channels=(24, 32))
    lower(network, tensors, NANO, BATCH).save(folder / "unet.smk")
    np.save(folder / "codes.npy", input_codes(network, BATCH, change=0.3))
    return folder


def hashes(work: Path, backend: str, bugs: tuple[Bug | None, ...]) -> list[str]:
    """Hash of the run, or the error, for the package with each of the bugs."""
    trees = []
    for bug in bugs:
        name = "none" if bug is None else re.sub(r"\W+", "-", bug.name)
        trees.append(str(copy_package(work / backend / name, bug)))
    arguments = [backend, str(work / "unet.smk"), str(work / "codes.npy"), *trees]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *arguments],
        env={**os.environ, "PYTHONPATH": trees[0], "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=work, capture_output=True, text=True, timeout=STALL_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    return [results[tree] for tree in trees]


def test_every_bug_breaks_the_hash(work: Path) -> None:
    sound = {}
    for backend, bugs in (("sim", SIM_BUGS), ("reference", REFERENCE_BUGS)):
        first, *planted = hashes(work, backend, (None, *bugs))
        assert re.fullmatch(r"[0-9a-f]{64}", first), first
        sound[backend] = first
        for bug, found in zip(bugs, planted, strict=True):
            assert re.fullmatch(r"[0-9a-f]{64}", found), f"{bug.file}, {bug.name}: {found}"
            assert found != first, f"{bug.file}: '{bug.name}' goes unnoticed"
        assert len({first, *planted}) == len(bugs) + 1, "two bugs cannot be told apart"
    assert sound["sim"] == sound["reference"]


def test_bugs_of_one_backend_leave_the_other_alone(work: Path) -> None:
    """The backends share only `hw/spec`: neither may read the other's code."""
    sound, *planted = hashes(work, "reference", (None, *SIM_BUGS))
    assert set(planted) == {sound}
