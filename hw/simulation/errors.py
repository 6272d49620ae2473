"""Failures of building or running a simulation of the RTL."""

from __future__ import annotations


class RtlError(RuntimeError):
    """A simulation that cannot be built, started or brought to its end; one sentence, or the
    sentence and the end of a log."""
