"""Progress of the compiler on stderr, whatever it tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from signmask.runtime.cli.console import progress_bar


@contextmanager
def compile_progress(text: str) -> Iterator[Callable[..., None]]:
    """A bar driven by the compiler's calls."""
    with progress_bar(text) as update:
        yield lambda *values: update(*values[-2:])
