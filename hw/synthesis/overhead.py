"""Area of what only a differential accelerator has, beside a dense INT8 one of the same size.

Both are sums of synthesised units. The dense accelerator has the same rows and columns, dense INT8
PEs, and the units without their differential parts; scratchpads are in neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.synthesis.netlist import Netlist

COMMON = ("Sfu", "LoadUnit", "StoreUnit", "Sequencer", "Control", "Counters")

# Cambricon-D (Kong et al., ISCA 2024): overhead over a non-differential design, and mm2 at 7 nm.
PAPER_OVERHEAD = 0.036
PAPER_LOGIC_MM2 = {"PE array": 2.38, "ReLU + compression": 0.17, "near-memory engine": 0.13}
PAPER_SRAM_MM2 = {"input": 4.52, "output": 4.64, "weight": 4.52}

# Differential parts: title, unit, and a pattern for its submodules, of which the outermost count.
PARTS = (
    ("mask path of the SFU (ENCODE_MASK)", "Sfu", r"encode_mask"),
    ("differencing and group encoders of the SFU", "Sfu", r"encode_(raw|source)\.differencing"),
    ("decompressor of the load unit", "LoadUnit", r".*\b(fields|expander)"),
    ("compressor of the store unit", "StoreUnit", r".*\bcompressor"),
)  # fmt: skip


def overhead(config: HardwareConfig, found: Mapping[str, Netlist]) -> dict[str, Any]:
    """Items, both totals in um2, and the ratios; `found` holds the units by name."""
    pes = config.rows * config.columns
    pe, dense_pe = found["Pe"].top.area, found["Pe dense INT8"].top.area
    selectors = config.rows * found["OutlierSelector"].top.area
    kept_selectors = config.rows * _selector(found["PeArray"])
    glue = found["PeArray"].top.area - kept_selectors
    inside = {title: _inside(found[unit], pattern) for title, unit, pattern in PARTS}
    common = sum(found[name].top.area for name in COMMON)
    added = {
        "outlier selectors": selectors,
        "weight multiplexers of the full lanes": pes * found["WeightSelectors"].top.area,
        **inside,
        "near-data engine": found["NearDataEngine"].top.area,
    }
    differential = pes * pe + selectors + glue + common + found["NearDataEngine"].top.area
    dense = pes * dense_pe + glue + common - sum(inside.values())
    paper_logic = sum(PAPER_LOGIC_MM2.values())
    paper_total = paper_logic + sum(PAPER_SRAM_MM2.values())
    paper_added = paper_total * PAPER_OVERHEAD / (1 + PAPER_OVERHEAD)
    return {
        "added_um2": added,
        "added_total_um2": sum(added.values()),
        "pes_um2": pes * pe,
        "dense_pes_um2": pes * dense_pe,
        "full_lanes_um2": pes * (pe - found["Pe without full lanes"].top.area),
        "differential_um2": differential,
        "dense_um2": dense,
        "added_over_dense": sum(added.values()) / dense,
        "differential_over_dense": differential / dense - 1,
        "paper": {
            "source": "Kong et al., Cambricon-D, ISCA 2024, DOI 10.1109/ISCA59077.2024.00070",
            "overhead": PAPER_OVERHEAD,
            "logic_mm2": PAPER_LOGIC_MM2,
            "sram_mm2": PAPER_SRAM_MM2,
            "overhead_of_logic_alone": paper_added / (paper_logic - paper_added),
        },
    }


def _selector(array: Netlist) -> float:
    """Area of the one selector module in the array."""
    return sum(part.area for name, part in array.parts.items() if "outlier_selector" in name)


def _inside(unit: Netlist, pattern: str) -> float:
    """Area of the outermost submodules whose whole name matches; raises ValueError for none."""
    names = [name for name in unit.parts if re.fullmatch(pattern, name)]
    if not names:
        raise ValueError(f"no submodule matches '{pattern}' among {sorted(unit.parts)}.")
    outer = [n for n in names if not any(n.startswith(f"{o}.") for o in names)]
    return sum(unit.parts[name].area for name in outer)
