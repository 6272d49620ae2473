"""Figures of a made-up synthesis, for the tests of what is computed and printed from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from signmask.hw.spec.config import NANO
from signmask.hw.synthesis.netlist import Netlist, Part
from signmask.hw.synthesis.overhead import overhead


def part(area: float) -> Part:
    return Part(area, int(area), 1, 0)


def netlist(area: float, parts: Mapping[str, float] | None = None) -> Netlist:
    return Netlist(part(area), {n: part(a) for n, a in (parts or {}).items()}, {}, 2.5, "")


@pytest.fixture
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


@pytest.fixture
def result(netlists: dict[str, Netlist]) -> dict[str, Any]:
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
        "overhead": overhead(NANO, netlists),
    }  # fmt: skip
