"""Failures that a user can cause and mend; each message is one sentence with cause and remedy."""

from __future__ import annotations


class RunError(ValueError):
    """A run that cannot start or go on: wrong shapes, options, schedules or results."""


class MissingExtra(RunError):
    """An optional dependency that the requested work needs is not installed."""

    def __init__(self, module: str, extra: str, work: str) -> None:
        super().__init__(
            f"{work} needs the Python package '{module}', which is not installed; "
            f"install it with \"pip install 'signmask[{extra}]'\"."
        )
