"""Failures of emitting, building or running the RTL; each message is one sentence with cause and
remedy, and where a tool failed the end of its log."""

from __future__ import annotations


class RtlError(RuntimeError):
    """A simulation that cannot be built, started or brought to its end."""


class EmitError(RtlError):
    """A design that is not complete."""
