"""Knobs of the named dataflows, with overrides from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from signmask.hw.spec.config import HardwareConfig
from signmask.hw.spec.network import Knobs
from signmask.runtime.errors import RunError

DATAFLOWS = ("dense", "restore", "mask")
# Legal values by knob; the compiler's own limits may be tighter.
CHOICES: dict[str, tuple[Any, ...]] = {
    "inlier_bits": (3, 4, 5),
    "overflow": ("clip", "spill"),
    "mask_bits": (1, 2, 3),
    "loop": ("open", "carry", "closed"),
    "norm": ("calibrated", "trend", "live"),
}
PAPER = {"loop": "open", "norm": "calibrated", "overflow": "clip", "mask_bits": 1, "grid_bits": 0}
DEFAULT_CARRY_BITS = 4


def knobs_for(
    dataflow: str,
    config: HardwareConfig,
    relu: bool = False,
    paper: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Knobs, HardwareConfig]:
    """Knobs of a dataflow and the configuration with the lanes that they ask for.

    relu: the model's activation is ReLU, for which one mask bit is exact. paper: Cambricon-D's own
    setting (mask only). overrides: knob values by name, None meaning the default. Raises RunError
    for a value that no program can have.
    """
    if dataflow not in DATAFLOWS:
        raise RunError(f"unknown dataflow '{dataflow}'; choose one of {', '.join(DATAFLOWS)}.")
    if paper and dataflow != "mask":
        raise RunError(f"--paper is a setting of the mask dataflow, not of '{dataflow}'; drop one.")
    given = {k: v for k, v in (overrides or {}).items() if v is not None}
    values: dict[str, Any] = {
        "dataflow": dataflow,
        "group": config.group,
        "full_lanes": config.full_lanes,
        "inlier_bits": config.inlier_bits,
    }
    if relu:
        values["mask_bits"] = 1
    if dataflow == "restore":
        values["overflow"] = "spill"
    if paper:
        values |= PAPER
    values |= given
    if values.get("loop") == "carry" and "carry_bits" not in given:
        values["carry_bits"] = DEFAULT_CARRY_BITS
    _check(values, config)
    config = replace(config, inlier_bits=values["inlier_bits"], full_lanes=values["full_lanes"])
    return Knobs(**values), config


def _check(values: Mapping[str, Any], config: HardwareConfig) -> None:
    for name, choices in CHOICES.items():
        if name in values and values[name] not in choices:
            raise RunError(
                f"{_option(name)} is {values[name]}; choose one of {', '.join(map(str, choices))}."
            )
    limits = {"full_lanes": (1, config.group), "carry_bits": (0, 8), "grid_bits": (0, 8)}
    for name, (low, high) in limits.items():
        if name in values and not low <= values[name] <= high:
            raise RunError(f"{_option(name)} is {values[name]}; use {low} to {high}.")
    if values.get("carry_bits", 0) and values.get("loop") != "carry":
        raise RunError("--carry-bits has an effect with '--loop carry' only; add it or drop it.")
    if values.get("refresh_every", 0) < 0:
        raise RunError(
            f"--refresh-every is {values['refresh_every']}; use 0 (never) or a number of steps."
        )
    if not 0 <= values.get("refresh_drift", 0.0) <= 1:
        raise RunError(
            f"--refresh-drift is {values['refresh_drift']}; use a fraction from 0 (never) to 1."
        )


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")
