"""GOSPA at cases that can be computed by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ris_verified.errors import InputError, ShapeError
from ris_verified.evaluate.gospa import gospa

NONE = np.empty((0, 3))
TRUTH = np.array([[1.0, 0, 0], [2.0, 0, 0]])


def test_perfect_in_any_order_is_zero():
    found = gospa(TRUTH[::-1], TRUTH, 1.0)
    assert (found.distance, found.detected, found.missed, found.false) == (0.0, 2, 0, 0)


def test_a_miss_and_a_false_alarm_each_cost_half_a_square_of_the_cutoff():
    assert gospa(NONE, TRUTH[:1], 3.0).distance == pytest.approx(3 / math.sqrt(2))
    assert gospa(TRUTH[:1], NONE, 3.0).distance == pytest.approx(3 / math.sqrt(2))
    assert gospa(NONE, NONE, 3.0).distance == 0.0


def test_a_pair_beyond_the_cutoff_is_a_miss_and_a_false_alarm():
    far = TRUTH + np.array([0, 1.5, 0])
    found = gospa(far[:1], TRUTH[:1], 1.0)
    assert (found.detected, found.missed, found.false) == (0, 1, 1)
    assert found.distance == pytest.approx(1.0)


def test_localisation_and_counts_add_up():
    estimates = np.array([[1.1, 0, 0], [2.0, 0.2, 0], [9.0, 0, 0]])
    found = gospa(estimates, TRUTH, 1.0)
    assert (found.detected, found.missed, found.false) == (2, 0, 1)
    assert found.localisation == pytest.approx(0.01 + 0.04)
    assert found.distance**2 == pytest.approx(0.05 + 0.5)


def _by_enumeration(X, Y, c):
    """Return the metric as its definition says: the smallest over all partial assignments."""
    best = math.inf
    for size in range(min(len(X), len(Y)) + 1):
        for rows in itertools.combinations(range(len(X)), size):
            for columns in itertools.permutations(range(len(Y)), size):
                paired = sum(float(((X[i] - Y[j]) ** 2).sum()) for i, j in zip(rows, columns, strict=True))
                best = min(best, paired + c**2 / 2 * (len(X) + len(Y) - 2 * size))
    return math.sqrt(best)


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_minimum_over_all_partial_assignments(seed):
    rng = np.random.default_rng(seed)
    X, Y = (rng.uniform(-1, 1, (int(rng.integers(0, 4)), 3)) for _ in range(2))
    assert gospa(X, Y, 0.8).distance == pytest.approx(_by_enumeration(X, Y, 0.8), rel=1e-12)


@pytest.mark.parametrize("cutoff", [0.0, -1.0, math.inf, math.nan])
def test_a_cutoff_that_is_no_distance_is_refused(cutoff):
    with pytest.raises(InputError, match="cutoff"):
        gospa(TRUTH, TRUTH, cutoff)


def test_points_of_other_dimensions_are_refused():
    with pytest.raises(ShapeError):
        gospa(TRUTH, TRUTH[:, :2], 1.0)
