"""Consoles and progress: tables and results on stdout, everything else on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

WIDTH = 100
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: dict[str, Any]) -> None:
    """One JSON object on stdout; infinite and undefined numbers are errors, not JSON."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_table(table: Table) -> None:
    """A table of at most WIDTH columns, also where stdout is no terminal."""
    width = min(WIDTH, out.width) if out.is_terminal else WIDTH
    Console(highlight=False, width=width).print(table)


@contextmanager
def progress_bar(text: str) -> Iterator[Callable[..., None]]:
    """A bar on stderr, where that is a terminal, driven by calls with (done, total) or (done,
    total, new text)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    # Without a terminal a transient bar would leave empty lines.
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task(text, total=None)

        def update(done: int, total: int, label: str = text) -> None:
            bar.update(task, completed=done, total=total, description=label)

        yield update


@contextmanager
def compile_bar(text: str) -> Iterator[Callable[[str, float], None]]:
    """A bar on stderr, driven by the compiler with (stage, fraction done)."""
    with progress_bar(text) as update:
        yield lambda stage, fraction: update(round(1000 * fraction), 1000, f"{text}: {stage}")
