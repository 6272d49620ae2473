"""Place. Needs: a dataflow preset. Guarantees: the mode of each encoding and source, and why."""

from __future__ import annotations

from dataclasses import replace

from signmask.hw.spec.network import CodeSource, Encoding, Knobs, Mode

_REASONS: dict[Mode, str] = {
    "dense": "preset dense: every step works on raw codes",
    "restore": "preset restore: raw values are restored before the activation, exact",
    "mask": "preset mask: differences pass the activation by segment slope",
}


def place_encoding(encoding: Encoding, knobs: Knobs, factor: bool, changing: bool) -> Encoding:
    """The encoding with the preset's mode. `factor`: a product reads it; `changing`: its fixed
    scale depends on the timestep or the image."""
    mode, reason = knobs.dataflow, _REASONS[knobs.dataflow]
    if factor:
        mode, reason = "dense", "its codes go into a product, which works on raw codes"
    elif mode == "mask" and encoding.token_norm:
        mode, reason = "restore", "statistics of each token change: raw values are restored"
    elif mode == "mask" and changing:
        mode, reason = (
            "restore",
            "its scale changes with the timestep or the image: raw values are restored",
        )
    return replace(encoding, mode=mode, reason=reason)


def place_source(source: CodeSource, knobs: Knobs) -> CodeSource:
    """The source with its mode: codes that no stream holds can only be differenced by restoring."""
    if knobs.dataflow == "dense":
        return replace(source, mode="dense", reason=_REASONS["dense"])
    reason = "codes come without a raw stream: differenced against the codes sent before"
    return replace(source, mode="restore", reason=reason)
