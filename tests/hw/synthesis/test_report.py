"""Overhead and page, from netlists with made-up figures."""

from __future__ import annotations

from typing import Any

import pytest

from signmask.hw.spec.config import NANO
from signmask.hw.synthesis.netlist import Netlist
from signmask.hw.synthesis.overhead import overhead
from signmask.hw.synthesis.report import lane_rows, overhead_rows, page, table, unit_rows


def test_overhead_counts_every_part_once(netlists: dict[str, Netlist]) -> None:
    facts = overhead(NANO, netlists)
    assert facts["added_um2"] == {
        "outlier selectors": 8 * 5.1,
        "weight multiplexers of the full lanes": 64 * 0.5,
        "mask path of the SFU (ENCODE_MASK)": 60,
        "differencing and group encoders of the SFU": 20,
        "decompressor of the load unit": 10,
        "compressor of the store unit": 8,
        "near-data engine": 300,
    }
    common = 500 + 80 + 70 + 20 + 10 + 30
    array = 140 - 8 * 5
    assert facts["differential_um2"] == pytest.approx(640 + 8 * 5.1 + array + common + 300)
    assert facts["dense_um2"] == pytest.approx(64 * 12 + array + common - 98)
    assert facts["full_lanes_um2"] == 64 * 3
    assert facts["added_over_dense"] == facts["added_total_um2"] / facts["dense_um2"]


def test_paper_overhead_of_logic_follows_from_its_table(
    netlists: dict[str, Netlist],
) -> None:
    paper = overhead(NANO, netlists)["paper"]
    logic = sum(paper["logic_mm2"].values())
    base = logic / (1 + paper["overhead_of_logic_alone"])
    total = logic + sum(paper["sram_mm2"].values())
    assert (logic - base) / (total - (logic - base)) == pytest.approx(0.036)


def test_missing_submodule_is_an_error(netlists: dict[str, Netlist]) -> None:
    part = netlists["Sfu"].top
    found = netlists | {"Sfu": Netlist(part, {"encode_raw": part}, {}, None, "")}
    with pytest.raises(ValueError, match="no submodule matches 'encode_mask'"):
        overhead(NANO, found)


def test_rows(result: dict[str, Any]) -> None:
    assert unit_rows(result) == [("Sfu", "1,234", "56", "7", "2,048", "3.46", "")]
    assert lane_rows(result) == [
        ("16", "INT8 dense", "0", "16", "3,200", "200", "1.00", "8", ""),
    ]
    assert overhead_rows(result)[-1][0] == "all of these"


def test_page_names_library_tools_and_command(result: dict[str, Any]) -> None:
    text = page(result, "signmask hw area --config nano")
    for fact in (
        "`signmask hw area --config nano`", "osu018, 180 nm", "Yosys 0.23", "2.0.17", "5 ns",
        "3.6 %", "ISCA 2024", "| Sfu | 1,234 |", "input 4,096",
    ):  # fmt: skip
        assert fact in text
    assert all(len(line.split("|")) in (1, 5, 9, 11) for line in text.splitlines())


def test_table_aligns_figures() -> None:
    text = table(("name", "um2", "note"), [("a", "1,000", ""), ("b", "2", "")])
    assert text.splitlines()[1] == "| --- | ---: | --- |"
