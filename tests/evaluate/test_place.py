"""Where the sources of a cell stand."""

from __future__ import annotations

import numpy as np
import pytest

from ris_verified.config import SceneConfig
from ris_verified.errors import InputError
from ris_verified.evaluate.place import draw_directions, draw_ranges, smallest_angle

VIEW = SceneConfig()


def test_two_sources_stand_exactly_apart_and_in_view():
    rng = np.random.default_rng(0)
    drawn = [draw_directions(VIEW, 2, 0.2, rng) for _ in range(50)]
    # Angles pass through unit vectors; each step rounds once.
    assert np.allclose([smallest_angle(*d) for d in drawn], 0.2, rtol=0, atol=64 * np.finfo(float).eps)
    assert max(np.abs(azimuth).max() for azimuth, _ in drawn) <= VIEW.azimuth_max
    assert max(np.abs(elevation).max() for _, elevation in drawn) <= VIEW.elevation_max
    bearings = {tuple(np.sign([np.diff(a)[0], np.diff(e)[0]])) for a, e in drawn}
    assert len(bearings) == 4, "the second source lies in every quadrant around the first"


def test_more_sources_keep_at_least_their_distance():
    rng = np.random.default_rng(1)
    assert min(smallest_angle(*draw_directions(VIEW, 4, 0.3, rng)) for _ in range(20)) >= 0.3


def test_free_directions_fill_the_view():
    rng = np.random.default_rng(2)
    azimuth = np.concatenate([draw_directions(VIEW, 5, 0.0, rng)[0] for _ in range(100)])
    # The largest of 500 uniform values misses the edge by 1 % of the width with probability below 1 %.
    assert azimuth.max() > 0.98 * VIEW.azimuth_max
    assert azimuth.min() < -0.98 * VIEW.azimuth_max


def test_sources_that_do_not_fit_are_one_error():
    with pytest.raises(InputError, match="separation"):
        draw_directions(VIEW, 5, 2.0, np.random.default_rng(0))


def test_a_single_source_is_apart_from_nothing():
    assert smallest_angle(np.array([0.1]), np.array([0.2])) == np.inf


def test_ranges_keep_to_their_band_and_to_the_view():
    rng = np.random.default_rng(3)
    band = draw_ranges(VIEW, 500, 2.0, rng)
    assert 1.8 <= band.min() < 1.82
    assert 2.18 < band.max() <= 2.2
    assert draw_ranges(VIEW, 500, VIEW.range_max, rng).max() <= VIEW.range_max
    assert draw_ranges(VIEW, 500, None, rng).max() > 2.2
    with pytest.raises(InputError, match="the view"):
        draw_ranges(VIEW, 1, 11.0, rng)
