"""Place. Needs: a dataflow preset. Guarantees: the mode of each encoding and source, and why."""

from __future__ import annotations

from dataclasses import replace

from signmask.hw.spec.network import CodeSource, Encoding, Knobs, Mode

_REASONS: dict[Mode, str] = {
    "dense": "preset dense: every step works on raw codes",
    "restore": "preset restore: raw values are restored before the activation, exact",
    "mask": "preset mask: differences pass the activation by segment slope",
}


def place_encoding(encoding: Encoding, knobs: Knobs) -> Encoding:
    """The encoding with the preset's mode."""
    return replace(encoding, mode=knobs.dataflow, reason=_REASONS[knobs.dataflow])


def place_source(source: CodeSource, knobs: Knobs) -> CodeSource:
    """The source with its mode: codes that no stream holds can only be differenced by restoring."""
    if knobs.dataflow == "dense":
        return replace(source, mode="dense", reason=_REASONS["dense"])
    reason = "codes come without a raw stream: differenced against the codes sent before"
    return replace(source, mode="restore", reason=reason)
