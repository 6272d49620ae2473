"""`signmask models`: the models that come with the package."""

from __future__ import annotations

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
    table = Table("name", "facts")
    for row in rows:
        facts = (f"{k}: {v}" for k, v in row.items() if k != "name" and not isinstance(v, dict))
        table.add_row(str(row["name"]), "\n".join(facts))
    print_table(table)
