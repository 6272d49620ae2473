import pytest

from signmask.hw.spec.config import NANO
from signmask.hw.spec.network import Knobs
from signmask.runtime.errors import RunError
from signmask.runtime.presets import knobs_for


def test_defaults():
    assert knobs_for("mask", NANO)[0] == Knobs()
    assert knobs_for("mask", NANO, relu=True)[0] == Knobs(mask_bits=1)
    assert knobs_for("restore", NANO)[0] == Knobs(dataflow="restore", overflow="spill")


def test_paper():
    expected = Knobs(loop="open", norm="calibrated", overflow="clip", mask_bits=1, grid_bits=0)
    assert knobs_for("mask", NANO, paper=True)[0] == expected


def test_lanes_go_to_the_hardware_too():
    knobs, config = knobs_for("mask", NANO, overrides={"inlier_bits": 4, "full_lanes": 3})
    assert (
        (config.inlier_bits, config.full_lanes) == (knobs.inlier_bits, knobs.full_lanes) == (4, 3)
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"mask_bits": 9}, "--mask-bits is 9"),
        ({"loop": "shut"}, "--loop is shut"),
        ({"full_lanes": 17}, "--full-lanes is 17"),
        ({"carry_bits": 2}, "--carry-bits"),
        ({"refresh_every": -1}, "--refresh-every"),
        ({"refresh_drift": 1.5}, "--refresh-drift"),
    ],
)
def test_bad_values_name_the_option(overrides, message):
    with pytest.raises(RunError, match=message):
        knobs_for("mask", NANO, overrides=overrides)


def test_paper_is_for_mask():
    with pytest.raises(RunError, match="--paper"):
        knobs_for("dense", NANO, paper=True)
    with pytest.raises(RunError, match="unknown dataflow"):
        knobs_for("masks", NANO)
