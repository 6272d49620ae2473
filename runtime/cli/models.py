"""`signmask models`: the models that come with the package."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from signmask.runtime.cli.console import print_json, print_table
from signmask.runtime.cli.options import Json


def models(json: Json = False) -> None:
    """List the bundled models."""
    from signmask.reference.models import bundled

    rows = [{"name": name, **bundled.facts(name)} for name in bundled.names()]
    if json:
        print_json({"models": rows})
        return
    table = Table(box=SIMPLE_HEAD)
    columns = ("name", "activation", "parameters", "input_shape", "validation_loss", "licence")
    for name in columns:
        table.add_column(name.replace("_", " "))
    for row in rows:
        table.add_row(*(str(row.get(name, "-")) for name in columns))
    print_table(table)
