"""A quick set of random programs, and every case that ever failed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.cases import Case, cases
from tests.fuzz.harness import REGRESSIONS, check

QUICK = 12


@seed(3)
@settings(
    max_examples=QUICK, deadline=None, database=None, phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(cases())
def test_random_programs_agree(case):
    check(case)


@pytest.mark.parametrize("path", sorted(REGRESSIONS.glob("*.json")), ids=lambda path: path.stem)
def test_regression(path):
    check(Case.from_json(path.read_text(encoding="utf-8")))
