"""Output files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

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
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as stream:
            temporary = Path(stream.name)
            stream.write(data)
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise RunError(
            f"cannot write {path}: {error.strerror}; choose a folder that exists and is writable."
        ) from None
