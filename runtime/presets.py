"""Knobs of the named dataflows, with overrides from the command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np

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
WHOLE = ("full_lanes", "carry_bits", "grid_bits", "refresh_every")
PAPER = {"loop": "open", "norm": "calibrated", "overflow": "clip", "mask_bits": 1, "grid_bits": 0}
DEFAULT_CARRY_BITS = 4


def option(name: str) -> str:
    """A knob as the command line spells it."""
    return "--" + name.replace("_", "-")


def knobs_for(
    dataflow: str,
    config: HardwareConfig,
    relu: bool = False,
    paper: bool = False,
    overrides: Mapping[str, Any] | None = None,
    spelling: Callable[[str], str] = option,
) -> tuple[Knobs, HardwareConfig]:
    """Knobs of a dataflow and the configuration with the lanes that they ask for.

    relu: the model's activation is ReLU, for which one mask bit is exact. paper: Cambricon-D's own
    setting (mask only). overrides: knob values by name, None meaning the default. spelling: of a
    knob's name in messages. Raises RunError for a value that no program can have.
    """
    if dataflow not in DATAFLOWS:
        raise RunError(f"unknown dataflow '{dataflow}'; choose one of {', '.join(DATAFLOWS)}.")
    if paper and dataflow != "mask":
        raise RunError(
            f"{spelling('paper')} is a setting of the mask dataflow, not of '{dataflow}'; drop one."
        )
    given = {
        k: v.item() if isinstance(v, np.generic) else v
        for k, v in (overrides or {}).items()
        if v is not None
    }
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
    _check(values, config, spelling)
    config = replace(config, inlier_bits=values["inlier_bits"], full_lanes=values["full_lanes"])
    return Knobs(**values), config


def _check(
    values: Mapping[str, Any], config: HardwareConfig, spelling: Callable[[str], str]
) -> None:
    known = [item.name for item in fields(Knobs)]
    unknown = [name for name in values if name not in known]
    if unknown:
        free = [name for name in known if name not in ("dataflow", "group")]
        raise RunError(f"unknown knob '{unknown[0]}'; choose one of {', '.join(free)}.")
    if values["group"] != config.group:
        raise RunError(
            f"{spelling('group')} is {values['group']!r}; it is the configuration's, drop it."
        )
    for name, choices in CHOICES.items():
        if name in values and values[name] not in choices:
            raise RunError(
                f"{spelling(name)} is {values[name]}; choose one of {', '.join(map(str, choices))}."
            )
    for name in WHOLE:
        value = values.get(name, 0)
        if not isinstance(value, int) or isinstance(value, bool):
            raise RunError(f"{spelling(name)} is {value!r}; give a whole number.")
    limits = {"full_lanes": (1, config.group), "carry_bits": (0, 8), "grid_bits": (0, 8)}
    for name, (low, high) in limits.items():
        if name in values and not low <= values[name] <= high:
            raise RunError(f"{spelling(name)} is {values[name]}; use {low} to {high}.")
    if values.get("carry_bits", 0) and values.get("loop") != "carry":
        raise RunError(
            f"{spelling('carry_bits')} has an effect where {spelling('loop')} is 'carry' only; add "
            "that or drop it."
        )
    if values.get("refresh_every", 0) < 0:
        raise RunError(
            f"{spelling('refresh_every')} is {values['refresh_every']}; use 0 (never) or a number "
            "of steps."
        )
    drift = values.get("refresh_drift", 0.0)
    if not isinstance(drift, int | float) or not 0 <= drift <= 1:
        raise RunError(
            f"{spelling('refresh_drift')} is {drift!r}; use a fraction from 0 (never) to 1."
        )
