"""Output files that appear whole or not at all, and tables read from JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from signmask.hw.spec.files import write_whole as write
from signmask.runtime.errors import RunError


def make_folder(path: Path) -> Path:
    """Create an output folder; raises RunError where that is impossible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"cannot create folder {path}: {error.strerror}; choose another with --out."
        ) from None
    return path


def write_whole(path: Path, data: bytes) -> None:
    """Write through a temporary file beside `path`; raises RunError where that is impossible."""
    try:
        write(path, data)
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror}; choose a folder that exists and is writable."
        ) from None


def read_table(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in a file. Raises RunError where there is none; `remedy` ends its sentence,
    "save the model again" for example."""
    try:
        data = json.loads(path.read_text())
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}; check the path.") from None
    except ValueError:
        raise RunError(f"{path} is not JSON; {remedy}.") from None
    if not isinstance(data, dict):
        raise RunError(f"{path} holds no table; {remedy}.")
    return data
