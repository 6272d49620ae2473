"""Rewrites netlists of yosys into the Verilog that OpenSTA reads."""

from __future__ import annotations

import re

ASSIGN = re.compile(r"^\s*assign (?P<left>.*) = (?P<right>.*);$")
CONSTANT = re.compile(r"^(\d+)'b([01xz]+)$")
RANGE = re.compile(r"^(?P<name>.*\S)\s*\[(?P<high>\d+):(?P<low>\d+)\]$")
DECLARED = re.compile(r"^\s*(?:input|output|inout|wire)\s+(?:wire\s+)?\[(\d+):(\d+)\]\s+(\S+)\s*;$")


def bitwise_assignments(text: str) -> str:
    """The netlist with every assignment of more than one bit split into single bits.

    OpenSTA has no concatenations on the left of an assignment.
    """
    lines: list[str] = []
    widths: dict[str, tuple[int, int]] = {}
    for line in text.splitlines():
        if line.startswith("module "):
            widths = {}
        declared = DECLARED.match(line)
        if declared:
            widths[declared[3]] = int(declared[1]), int(declared[2])
        found = ASSIGN.match(line)
        if found and ("{" in line or ":" in line or found["left"].strip() in widths):
            pairs = zip(_bits(found["left"], widths), _bits(found["right"], widths), strict=True)
            lines += [f"  assign {left} = {right};" for left, right in pairs]
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _bits(expression: str, widths: dict[str, tuple[int, int]]) -> list[str]:
    """Single bits of an expression, highest first."""
    expression = expression.strip()
    if expression.startswith("{"):
        inner = expression[1:-1].split(",")
        return [bit for piece in inner for bit in _bits(piece, widths)]
    constant = CONSTANT.match(expression)
    if constant:
        digits = constant[2].rjust(int(constant[1]), "0")
        return [f"1'b{digit}" for digit in digits]
    selected = RANGE.match(expression)
    if selected:
        high, low = int(selected["high"]), int(selected["low"])
        return [f"{selected['name']} [{i}]" for i in range(high, low - 1, -1)]
    if expression in widths:
        high, low = widths[expression]
        return [f"{expression} [{i}]" for i in range(high, low - 1, -1)]
    return [expression]
