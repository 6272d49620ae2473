"""Expected cycles and assumed shares of differences, against what runs."""

import json

import numpy as np
import pytest

from benchmarks.delta_shares import IMAGES, measure, tenths
from signmask.compiler.backend.cost import expected_passes
from signmask.compiler.delta_shares import MEASURED, delta_shares
from signmask.hw.spec.config import NANO, PAPER
from signmask.runtime.build import build_program
from signmask.runtime.presets import knobs_for
from signmask.runtime.session import Session
from signmask.runtime.sources import resolve

STEPS = 20
WITHIN = {"dense": 0.1, "restore": 0.15, "mask": 0.15}  # of the simulated cycles


@pytest.mark.parametrize("dataflow", WITHIN)
def test_expected_cycles_are_near_the_simulated_ones(dataflow):
    source = resolve("fashion-silu")
    knobs, config = knobs_for(dataflow, NANO)
    program = build_program(source, config, knobs, STEPS, 1)
    ran = Session(program, "sim").sample(1).steps
    for kind in ("dense", "delta"):
        steps = [s.cycles for s in ran if getattr(s, kind)]
        if steps:
            expected = sum(row[f"{kind}_cycles"] for row in program.report)
            assert expected == pytest.approx(np.mean(steps), rel=WITHIN[dataflow]), kind


def test_shares_are_those_that_the_bundled_model_has():
    table = json.loads(MEASURED.read_text())
    assert table["images"] == IMAGES
    assert measure("mask", NANO.inlier_bits, STEPS) == table["shares"]["mask"]["3"][str(STEPS)]


def test_shares_move_with_the_number_of_steps_and_inlier_bits():
    few, more = delta_shares(20, 3, "mask"), delta_shares(50, 3, "mask")
    between = delta_shares(30, 3, "mask")
    assert few.zero < between.zero < more.zero
    assert few.outlier > between.outlier > more.outlier > delta_shares(50, 5, "mask").outlier
    assert sum((between.zero, between.inlier, between.outlier)) == pytest.approx(1, abs=1e-5)
    assert sorted(between.outlier_deciles) == list(between.outlier_deciles)
    assert np.mean(between.outlier_deciles) == pytest.approx(between.outlier, abs=1e-5)
    assert delta_shares(1000, 3, "mask").zero == delta_shares(100, 3, "mask").zero


def test_tenths_are_weighted_means_in_ascending_order():
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([1.0, 8.0, 1.0])
    assert tenths(values, weights) == pytest.approx([1.0] * 8 + [2.0, 3.0])


def test_passes_are_those_of_the_worst_row():
    """No outliers take one pass; with every element an outlier, all groups take the most."""
    assert expected_passes(PAPER, 0.0) == 1
    assert expected_passes(PAPER, 1.0) == pytest.approx(expected_passes(NANO, 1.0))
    assert 1 < expected_passes(NANO, 0.05) < expected_passes(PAPER, 0.05)
