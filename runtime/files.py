"""Output files that appear whole or not at all, and tables read from JSON."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryFile
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


def check_file(path: Path, option: str) -> None:
    """Raise RunError where no file can be written at `path`, which `option` gave, so that this is
    said before any work; nothing is left behind."""
    _check_name(path, option)
    if path.is_dir():
        raise RunError(f"{path} is a folder; name a file in it with {option}.")
    if not path.parent.is_dir():
        raise RunError(
            f"folder {path.parent} does not exist; create it or choose another {option}."
        )
    _check_writable(path.parent, option)


def check_folder(path: Path, option: str) -> None:
    """The same where no folder can be created or written at `path`."""
    _check_name(path, option)
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise RunError(f"{existing} is no folder; choose another with {option}.")
    _check_writable(existing, option)


def _check_name(path: Path, option: str) -> None:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror}; choose another with {option}."
        ) from None


def _check_writable(folder: Path, option: str) -> None:
    try:
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RunError(
            f"cannot write into folder {folder}: {error.strerror}; choose another with {option}."
        ) from None


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
