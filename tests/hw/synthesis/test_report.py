"""Overhead and page, from netlists with made-up figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from signmask.hw.spec.config import NANO
from signmask.hw.synthesis.netlist import Netlist, Part
from signmask.hw.synthesis.overhead import overhead
from signmask.hw.synthesis.report import lane_rows, overhead_rows, page, table, unit_rows


def part(area: float) -> Part:
    return Part(area, int(area), 1, 0)


def netlist(area: float, parts: Mapping[str, float] | None = None) -> Netlist:
    return Netlist(part(area), {n: part(a) for n, a in (parts or {}).items()}, {}, 2.5, "")


def netlists() -> dict[str, Netlist]:
    """64 PEs of 10 um2, 12 when dense; 8 selectors of 5; the rest as below."""
    return {
        "Pe": netlist(10),
        "Pe dense INT8": netlist(12),
        "Pe without full lanes": netlist(7),
        "WeightSelectors": netlist(0.5),
        "OutlierSelector": netlist(5.1),
        "PeArray": netlist(140, {"signmask_outlier_selector_16x4_2x9_3": 5, "results": 50}),
        "Sfu": netlist(
            500,
            {
                "encode_mask": 60, "encode_mask.differencing": 20, "encode_raw.differencing": 15,
                "encode_source.differencing": 5, "encode_raw": 100,
            },
        ),
        "LoadUnit": netlist(80, {"lander": 60, "lander.fields": 6, "lander.expander": 4}),
        "StoreUnit": netlist(70, {"reader.compressor": 8}),
        "NearDataEngine": netlist(300),
        "Sequencer": netlist(20),
        "Control": netlist(10),
        "Counters": netlist(30),
    }  # fmt: skip


def test_overhead_counts_every_part_once() -> None:
    facts = overhead(NANO, netlists())
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


def test_paper_overhead_of_logic_follows_from_its_table() -> None:
    paper = overhead(NANO, netlists())["paper"]
    logic = sum(paper["logic_mm2"].values())
    base = logic / (1 + paper["overhead_of_logic_alone"])
    total = logic + sum(paper["sram_mm2"].values())
    assert (logic - base) / (total - (logic - base)) == pytest.approx(0.036)


def test_missing_submodule_is_an_error() -> None:
    found = netlists() | {"Sfu": netlist(500, {"encode_raw": 3})}
    with pytest.raises(ValueError, match="no submodule matches 'encode_mask'"):
        overhead(NANO, found)


def result() -> dict[str, Any]:
    unit = {
        "name": "Sfu", "note": "", "area_um2": 1234.4, "cells": 56, "flip_flops": 7,
        "sram_bits": 2048, "critical_path_ns": 3.456, "critical_path": "", "parts": {},
    }  # fmt: skip
    lane = {
        "name": "INT8 dense", "lanes": 16, "narrow_lanes": 0, "full_lanes": 16, "area_um2": 3200.0,
        "area_per_lane_um2": 200.0, "cells": 9, "flip_flops": 8, "critical_path_ns": None,
        "relative_to_int8_dense": 1.0,
    }  # fmt: skip
    return {
        "config": NANO.to_json(),
        "technology": {
            "library": "osu018", "nanometres": 180, "corner": "typical", "source": "somewhere",
        },
        "tools": {"yosys": "Yosys 0.23", "opensta": "2.0.17"},
        "period_ns": 5.0,
        "units": [unit],
        "scratchpad_bits": {"input": 4096},
        "lane_mixes": [lane],
        "overhead": overhead(NANO, netlists()),
    }  # fmt: skip


def test_rows() -> None:
    assert unit_rows(result()) == [("Sfu", "1,234", "56", "7", "2,048", "3.46", "")]
    assert lane_rows(result()) == [
        ("16", "INT8 dense", "0", "16", "3,200", "200", "1.00", "8", ""),
    ]
    assert overhead_rows(result())[-1][0] == "all of these"


def test_page_names_library_tools_and_command() -> None:
    text = page(result(), "signmask hw area --config nano")
    for fact in (
        "`signmask hw area --config nano`", "osu018, 180 nm", "Yosys 0.23", "2.0.17", "5 ns",
        "3.6 %", "ISCA 2024", "| Sfu | 1,234 |", "input 4,096",
    ):  # fmt: skip
        assert fact in text
    assert all(len(line.split("|")) in (1, 5, 9, 11) for line in text.splitlines())


def test_table_aligns_figures() -> None:
    text = table(("name", "um2", "note"), [("a", "1,000", ""), ("b", "2", "")])
    assert text.splitlines()[1] == "| --- | ---: | --- |"
