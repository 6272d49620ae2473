"""The shipped calibrations fit the shipped weights, and nothing else."""

from dataclasses import replace

import pytest

from signmask.reference.models import bundled
from signmask.runtime.calibrations import STEPS, shipped
from signmask.runtime.sources import resolve


@pytest.mark.parametrize("name", bundled.names())
@pytest.mark.parametrize("steps", STEPS)
def test_bundled_models_come_with_calibrations(name, steps):
    calibration = shipped(resolve(name), steps)
    assert calibration is not None
    assert len(calibration.timesteps) == steps


def test_other_weights_schedules_and_steps_are_not_served():
    source = resolve("fashion-silu")
    assert shipped(replace(source, sha256="0" * 64), 50) is None
    assert shipped(replace(source, scheduler={**source.scheduler, "beta_end": 0.03}), 50) is None
    assert shipped(source, 49) is None
