"""Output files that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

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
