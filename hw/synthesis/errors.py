"""Failures of the synthesis flow."""

from __future__ import annotations


class SynthesisError(RuntimeError):
    """A missing tool or library, or a design that a tool refuses: one sentence with cause and
    remedy, where a tool failed followed by the end of its log."""
