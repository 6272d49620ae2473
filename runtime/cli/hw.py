"""`signmask hw`: the hardware itself."""

from __future__ import annotations

import importlib.util
import json as json_module
import os
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from signmask.hw.spec.config import resolve
from signmask.runtime.cli import options
from signmask.runtime.cli.console import out, print_json, progress_bar
from signmask.runtime.cli.hw_area import area
from signmask.runtime.cli.hw_diff import diff
from signmask.runtime.errors import MissingExtra, RunError

hw = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="The hardware itself.")


hw.command()(area)
hw.command()(diff)


@hw.callback()
def group() -> None:
    """The hardware itself."""


@hw.command()
def emit(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    config: options.Config = "nano",
    json: options.Json = False,
) -> None:
    """Write the accelerator as Verilog, with a manifest of its ports, registers and files."""
    hardware = resolve(config)
    if importlib.util.find_spec("amaranth") is None:
        raise MissingExtra("amaranth", "hw", "emitting Verilog")
    check_folder(output)
    from signmask.hw.package import MANIFEST, package

    with progress_bar(f"emitting {hardware.name}"):
        files = package(hardware)
    replace_folder(output, files)
    manifest = json_module.loads(files[MANIFEST])
    facts = {
        "folder": str(output),
        "config": hardware.name,
        "complete": manifest["complete"],
        "modules": [module["name"] for module in manifest["modules"]],
        "files": [str(output / name) for name in files],
        "bytes": sum(len(text.encode()) for text in files.values()),
    }
    if json:
        print_json(facts)
        return
    what = "the accelerator" if facts["complete"] else "parts"
    out.print(
        f"{output}: {what} ({', '.join(facts['modules'])}) in {len(files)} files, "
        f"{facts['bytes'] / 1e6:.2f} MB; see {MANIFEST}."
    )
    if not facts["complete"]:
        out.print(
            f"Note: config {hardware.name} has buses of {hardware.axi_bytes} and "
            f"{hardware.near_data_bytes} bytes; the whole accelerator needs powers of two, at most "
            "128; the manifest says how many of each part it has."
        )


def check_folder(path: Path) -> None:
    """Raise RunError unless `path` is free, an empty folder, or one that was emitted before."""
    if not path.parent.is_dir():
        raise RunError(f"folder {path.parent} does not exist; create it or choose another -o.")
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is a file; choose another folder with -o.")
    if path.is_dir() and any(path.iterdir()) and not (path / "manifest.json").is_file():
        raise RunError(
            f"folder {path} has files that are not from 'signmask hw emit'; choose another with -o."
        )


def replace_folder(path: Path, files: dict[str, str]) -> None:
    """Make `path` a folder of these files, all of them or none; raises RunError."""
    try:
        with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as work:
            fresh, old = Path(work) / "new", Path(work) / "old"
            fresh.mkdir()
            for name, text in files.items():
                (fresh / name).write_text(text, encoding="utf-8")
            before = path.exists()
            if before:
                os.replace(path, old)
            try:
                os.replace(fresh, path)
            except OSError:
                if before:
                    os.replace(old, path)
                raise
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror}; choose a folder that is writable."
        ) from None
