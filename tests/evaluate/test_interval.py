"""Figures and their intervals against closed forms and known coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from ris_verified.evaluate.interval import Figure, mean, median, root_mean_square, share

EPS = np.finfo(float).eps


@pytest.mark.parametrize(("k", "n"), [(0, 5), (5, 5), (3, 10), (39, 40), (1, 1)])
def test_shares_carry_wilsons_interval(k, n):
    z, p = norm.ppf(0.975), k / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    found = share(k, n)
    # The root cancels near p = 0, where its digits are lost.
    assert found.low == pytest.approx((middle - half) / (1 + z * z / n), abs=64 * EPS)
    assert found.high == pytest.approx((middle + half) / (1 + z * z / n), abs=64 * EPS)
    scipys = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert (found.low, found.high) == (scipys.low, scipys.high)
    assert found.value == p


def test_nothing_measured_is_no_figure():
    assert share(0, 0) == Figure()
    assert mean(np.empty(0), np.random.default_rng(0)) == Figure()
    assert root_mean_square(np.zeros(3), np.zeros(3), np.random.default_rng(0)) == Figure()


def test_one_scene_has_a_value_and_no_interval():
    assert root_mean_square(np.array([8.0]), np.array([2.0]), np.random.default_rng(0)) == Figure(2.0)


def test_a_median_is_no_mean_and_its_interval_lies_among_the_values():
    assert median(np.array([1.0, 2.0, 90.0]), np.random.default_rng(0)).value == 2
    assert median(np.array([90.0, 1.0, 4.0, 2.0]), np.random.default_rng(0)).value == 3
    assert mean(np.array([1.0, 2.0, 90.0]), np.random.default_rng(0)).value == 31
    # A mean of 21 values moves with the largest, a median of their resamples hardly ever reaches it.
    found = median(np.array([*range(20), 1e6]), np.random.default_rng(0))
    assert found.value == 10
    assert 0 <= found.low < 10 < found.high < 20


def test_rmse_pools_over_sources_and_not_over_scenes():
    found = root_mean_square(np.array([9.0, 0.0, 0.0]), np.array([1.0, 2.0, 0.0]), np.random.default_rng(0))
    assert found.value == pytest.approx(math.sqrt(3))
    assert 0 <= found.low <= found.value <= found.high <= 3


def test_scenes_that_agree_leave_no_doubt():
    for measure in (mean, median):
        assert measure(np.full(6, 2.5), np.random.default_rng(0)) == Figure(2.5, 2.5, 2.5)


def test_equal_generators_give_equal_intervals():
    values = np.random.default_rng(1).random(20)
    first, second, third = (mean(values, np.random.default_rng(seed)) for seed in (4, 4, 5))
    assert first == second
    assert first != third
    assert first.value == third.value


def test_intervals_of_the_rmse_cover_what_they_claim():
    rng, trials = np.random.default_rng(2), 200
    held = 0
    for _ in range(trials):
        found = root_mean_square(rng.standard_normal((60, 2)) ** 2 @ np.ones(2), np.full(60, 2.0), rng)
        held += found.low <= 1.0 <= found.high
    # Percentile intervals of 60 scenes fall short of 95 % by a few points; three sigma of 200 trials are 5 more.
    assert held / trials >= 0.95 - 0.04 - 3 * math.sqrt(0.95 * 0.05 / trials)
    assert held < trials
