"""`signmask models`: the models that come with the package, and the architectures that it knows."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from signmask.runtime.cli.console import print_json, print_table
from signmask.runtime.cli.options import Json


def models(json: Json = False) -> None:
    """List the bundled models and the named architectures."""
    from signmask.reference.models import bundled
    from signmask.runtime.architectures import ARCHITECTURES, SMALL

    rows = [{"name": name, **bundled.facts(name)} for name in bundled.names()]
    named = [found.facts() for found in ARCHITECTURES.values()]
    if json:
        print_json({"models": rows, "architectures": named})
        return
    bundled_columns = (
        "name",
        "activation",
        "parameters",
        "input_shape",
        "validation_loss",
        "licence",
    )
    print_table(_table("Bundled models, trained", bundled_columns, rows))
    small = {row["name"]: row["parameters"] for row in named}
    large = [
        {
            **row,
            "input_shape": "x".join(map(str, row["input_shape"])),
            "with -small": small[row["name"] + SMALL],
            "reference": row["source"].split(";")[0],
        }
        for row in named
        if not row["name"].endswith(SMALL)
    ]
    columns = ("name", "parameters", "with -small", "input_shape", "reference")
    print_table(_table("Architectures, with random weights or --no-weights", columns, large))


def _table(title: str, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD)
    for name in columns:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*("-" if row.get(name) is None else str(row[name]) for name in columns))
    return table
