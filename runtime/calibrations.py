"""Calibrations of the bundled models, shipped with their weights.

`python -m signmask.runtime.calibrations` measures them again (64 trajectories each, fixed seed).
A shipped calibration is used only for the weights and the schedule that it was measured on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from signmask.runtime.files import write_whole
from signmask.runtime.host import make_scheduler
from signmask.runtime.sources import ModelSource, resolve, sha256_of

STEPS = (20, 50)
FACTS = "calibration.json"


def shipped(source: ModelSource, steps: int) -> Any | None:
    """The shipped calibration of a bundled source, or None where there is none that fits."""
    if source.kind != "bundled":
        return None
    from signmask.compiler.calibration import Calibration
    from signmask.reference.models import bundled

    folder = bundled.folder(source.path)
    path = _path(folder, steps)
    if not path.is_file() or not (folder / FACTS).is_file():
        return None
    facts = json.loads((folder / FACTS).read_text())
    if facts["weights_sha256"] != source.sha256 or facts["scheduler"] != dict(source.scheduler):
        return None
    return Calibration.load(path)


def ship(name: str) -> list[Path]:
    """Measure and write the calibrations of a bundled model; returns the files."""
    from signmask.compiler.frontend import calibrate
    from signmask.reference.models import bundled

    source, folder = resolve(name), bundled.folder(name)
    model = source.load()
    files = []
    for steps in STEPS:
        path = _path(folder, steps)
        calibrate(model, make_scheduler(source.scheduler), steps).save(path)
        path.chmod(0o644)
        files.append(path)
    facts = {
        "steps": list(STEPS),
        "weights_sha256": sha256_of([folder / "weights.safetensors"]),
        "scheduler": dict(source.scheduler),
    }
    write_whole(folder / FACTS, (json.dumps(facts, indent=1) + "\n").encode())
    return [*files, folder / FACTS]


def _path(folder: Path, steps: int) -> Path:
    return folder / f"calibration-{steps}.safetensors"


def main() -> None:
    """Measure the calibrations of every bundled model."""
    from signmask.reference.models import bundled

    for name in bundled.names():
        for path in ship(name):
            print(path)


if __name__ == "__main__":
    main()
