"""Failures of the synthesis flow."""

from __future__ import annotations

from signmask.hw.errors import RtlError


class SynthesisError(RtlError):
    """A missing tool or library, or a design that a tool refuses."""
