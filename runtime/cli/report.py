"""`signmask report`: the HTML page of a stored comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from signmask.runtime.cli import options
from signmask.runtime.cli.console import out, print_json


def report(
    folder: Annotated[Path, typer.Argument(help="Folder that 'signmask compare --out' wrote.")],
    json: options.Json = False,
) -> None:
    """Write plots and the self-contained HTML page of a comparison again, from its data."""
    from signmask.runtime.comparison import Comparison
    from signmask.runtime.report import write_report

    files = write_report(Comparison.load(folder), folder)
    if json:
        print_json({"files": [str(path) for path in files]})
        return
    for path in files:
        out.print(f"Wrote {path}")
