"""What the normalisation unit's registers do not hold is refused."""

import numpy as np
import pytest

from signmask.sim.errors import Fault
from signmask.sim.normalisation import Normalisation, Part, normalised_parts

GOOD = dict(images=1, planes=1, parts=1, planes_0=1, channels_0=8, groups=2, count=4, epsilon=1,
            gain_shift=30, mean_shift=8)  # fmt: skip


def constants(total=2, squares=9, gain=5, trend=None, **changed):
    d = GOOD | changed
    unit = Normalisation(d, (Part(1, 8),), 8, np.full(8, gain), np.zeros(8, np.int64))
    sums = np.array([np.full(8, total), np.full(8, squares)]).reshape(1, 1, 2, 8)
    moments = unit.moments(sums)
    if trend:
        moments = unit.moved(moments, *(np.array([value] * 2) for value in trend))
    return unit.constants(moments)


def test_legal_limits():
    constants(gain=-(1 << 31), gain_shift=55, mean_shift=-63)
    constants(trend=(0, 1 << 38, 1 << 14, 1 << 14))
    assert normalised_parts(GOOD, 8) == (Part(1, 8),)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(groups=3), "8 channels for 3 groups"),
        (dict(count=0), "count of 0"),
        (dict(count=1 << 32), "count of"),
        (dict(epsilon=0), "epsilon of 0"),
        (dict(total=1 << 31), "sum beyond 33 bits"),
        (dict(squares=1 << 60), "squares beyond 63 bits"),
        (dict(squares=-1), "squares beyond 63 bits"),
        (dict(total=10, squares=1), "does not allow"),
        (dict(gain=1 << 31), "gain beyond 32 bits"),
        (dict(gain_shift=56), "shifts of 56 and 8"),
        (dict(mean_shift=64), "shifts of 30 and 64"),
        (dict(trend=(0, 1 << 39, 1, 1)), "mean beyond 40 bits"),
        (dict(trend=(0, 0, 1 << 31, 1)), "deviation beyond 32 bits"),
        (dict(trend=(0, 0, 1 << 30, 1 << 30)), "ratio of calibrated deviations beyond 40 bits"),
        (dict(trend=(0, 0, -(1 << 14), 1 << 14)), "reciprocal deviation beyond 31 bits"),
    ],
)
def test_refused(changed, message):
    with pytest.raises(Fault, match=message):
        constants(**changed)


@pytest.mark.parametrize(
    "changed",
    [dict(images=0), dict(parts=0), dict(parts=5), dict(planes=2), dict(channels_0=9),
     dict(channels_0=0)],
)  # fmt: skip
def test_sizes_refused(changed):
    with pytest.raises(Fault):
        normalised_parts(GOOD | changed, 8)
