"""Chains of registers."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Signal


def delays(m: Module, value: Any, count: int, name: str) -> list[Any]:
    """[value, value one cycle ago, ..., `count` cycles ago]."""
    chain = [value]
    for i in range(1, count + 1):
        chain.append(Signal(value.shape(), name=f"{name}_{i}"))
        m.d.sync += chain[-1].eq(chain[-2])
    return chain
