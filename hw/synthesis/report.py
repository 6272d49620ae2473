"""The page of area and timing, written from the result of `study`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def page(result: Mapping[str, Any], command: str) -> str:
    """Markdown of a result; `command` is what made it."""
    config, technology = result["config"], result["technology"]
    tools = ", ".join(f"{name} ({version})" for name, version in result["tools"].items())
    array = f"{config['rows']} x {config['columns']} PEs of {config['group']} + "
    array += f"{config['full_lanes']} lanes, inliers of {config['inlier_bits']} bits"
    sections = [
        f"# Area and timing: {config['name']}",
        f"Configuration `{config['name']}`: {array}. This page is the output of `{command}`, which "
        "needs the Debian packages `yosys`, `opensta` and `qflow-tech-"
        f"{technology['library']}`; the same figures are in `data/area.json`.",
        "## What the figures are",
        f"Cells of {technology['library']}, {technology['nanometres']} nm, {technology['corner']}: "
        f"{technology['source']}. Tools: {tools}. Every unit is emitted from the RTL and mapped "
        f"for a clock of {result['period_ns']:g} ns, one script for all; nothing is scaled or "
        "fitted.\n\n"
        "- Area is the sum of the mapped cells: no wires, no placement, no clock tree.\n"
        "- The critical path is OpenSTA's longest path with its setup time, with an ideal clock "
        "and wires without load or delay; inputs arrive with the clock edge and outputs are due "
        "with the next.\n"
        "- Scratchpads, and memories of at least 1,024 bits inside a unit, are black boxes: their "
        "bits are counted, their area and access time are not.",
        "## Units",
        table(UNIT_COLUMNS, unit_rows(result)),
        f"`PeArray` holds one selector for each of {config['rows']} rows. Scratchpads beside the "
        f"units: {sum(result['scratchpad_bits'].values()):,} bits ("
        + ", ".join(f"{name} {bits:,}" for name, bits in result["scratchpad_bits"].items())
        + ").",
        "## PEs of other lane mixes",
        table(LANE_COLUMNS, lane_rows(result)),
        "Lanes are multipliers. The integer mixes have a narrow lane of k + 1 x 8 bits for every "
        "operand, beside full lanes of 9 x 8 bits, digit shifters and an int32 accumulator; INT8 "
        "dense has 8 x 8 bits. FP16 multipliers and adders are IEEE 754 binary16, rounded to "
        "nearest even, with subnormals; products are summed in a tree of FP16 adders, two pipeline "
        "stages each, and accumulated in FP16 in one cycle, which sets their critical path. The "
        "mix of narrow and full FP16 lanes is the paper's 60 INT3 x FP16 + 4 FP16 x FP16, and the "
        "same proportion for other sizes; full lanes select among the weights of the narrow ones. "
        "The paper does not say how its lanes are summed: this tree is our choice.",
        "## Overhead of the differential parts",
        *_overhead(result),
    ]
    return "\n\n".join(sections) + "\n"


UNIT_COLUMNS = ("unit", "area um2", "cells", "flip-flops", "SRAM bits", "critical path ns", "note")
LANE_COLUMNS = (
    "lanes", "PE", "narrow", "full", "area um2", "um2 per lane", "of INT8 dense", "flip-flops",
    "critical path ns",
)  # fmt: skip


def unit_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each unit, in the order of UNIT_COLUMNS."""
    return [
        (
            unit["name"], f"{unit['area_um2']:,.0f}", f"{unit['cells']:,}",
            f"{unit['flip_flops']:,}", f"{unit['sram_bits']:,}", _path(unit["critical_path_ns"]),
            unit["note"],
        )
        for unit in result["units"]
    ]  # fmt: skip


def lane_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A row for each PE of the lane study, in the order of LANE_COLUMNS."""
    return [
        (
            str(row["lanes"]), row["name"], str(row["narrow_lanes"]), str(row["full_lanes"]),
            f"{row['area_um2']:,.0f}", f"{row['area_per_lane_um2']:,.0f}",
            f"{row['relative_to_int8_dense']:.2f}", f"{row['flip_flops']:,}",
            _path(row["critical_path_ns"]),
        )
        for row in result["lane_mixes"]
    ]  # fmt: skip


def overhead_rows(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """(part, um2, share of the dense accelerator)."""
    facts = result["overhead"]
    items = [*facts["added_um2"].items(), ("all of these", facts["added_total_um2"])]
    return [
        (name, f"{area:,.0f}", f"{100 * area / facts['dense_um2']:.1f} %") for name, area in items
    ]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns of figures are aligned to the right."""
    figures = [all(row[i][:1].isdigit() or not row[i] for row in rows) and any(
        row[i] for row in rows) for i in range(len(columns))]  # fmt: skip
    lines = [columns, [("---:" if figure else "---") for figure in figures], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _overhead(result: Mapping[str, Any]) -> list[str]:
    facts, paper = result["overhead"], result["overhead"]["paper"]
    logic = sum(paper["logic_mm2"].values())
    sram = sum(paper["sram_mm2"].values())
    pes = result["config"]["rows"] * result["config"]["columns"]
    return [
        "The dense accelerator is the same without them: as many PEs, with dense INT8 lanes, and "
        "the array's control, SFU, load and store units, sequencer, control port and counters less "
        f"the parts below: {facts['dense_um2']:,.0f} um2. Scratchpads are in neither.",
        table(("only in the differential accelerator", "um2", "of the dense one"),
              overhead_rows(result)),
        f"Its PEs are also different: {facts['pes_um2']:,.0f} um2 in place of "
        f"{facts['dense_pes_um2']:,.0f} um2 of dense INT8, multiplexers included; the full lanes "
        f"with all that belongs to them are {facts['full_lanes_um2']:,.0f} um2 of that. As a whole "
        f"the differential accelerator is {facts['differential_um2']:,.0f} um2, "
        f"{100 * facts['differential_over_dense']:+.1f} % against the dense one.",
        f"The paper states {100 * paper['overhead']:.1f} % over a non-differential design "
        f"({paper['source']}). That is a share of a design of 16,384 PEs of which "
        f"{100 * sram / (logic + sram):.0f} % is SRAM ({sram:.2f} of {logic + sram:.2f} mm2 at "
        "7 nm, near-memory engine included); if all of the overhead is logic, it is "
        f"{100 * paper['overhead_of_logic_alone']:.0f} % of the logic of a non-differential design "
        "(our arithmetic on its table). Our share has no SRAM in it, and its fixed parts, the "
        f"near-data engine first, stand beside {pes:,} PEs.",
    ]  # fmt: skip


def _path(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
