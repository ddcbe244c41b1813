"""Laws of the sweep: GOSPA is a metric, intervals hold their value, and no mismatch is no change of a bit."""

from __future__ import annotations

import functools

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ris_verified.config import Config
from ris_verified.evaluate.axes import Cell
from ris_verified.evaluate.gospa import gospa
from ris_verified.evaluate.interval import RESAMPLES, root_mean_square, share
from ris_verified.evaluate.mismatch import MISMATCHES, mismatched
from ris_verified.evaluate.place import draw_directions, smallest_angle
from ris_verified.scene.scene import draw_scene

EPS = np.finfo(float).eps
# A bootstrap or a scene an example; 25 of them keep this file within its share of the suite's time.
few = settings(max_examples=25)
cutoffs = st.floats(0.01, 10)
seeds = st.integers(0, 2**32 - 1)
names = st.sampled_from(sorted(MISMATCHES))


def clouds(most=4):
    coordinates = st.floats(-5, 5, allow_subnormal=False)
    return st.integers(0, most).flatmap(lambda n: arrays.arrays(np.float64, (n, 3), elements=coordinates))


def _slack(*distances):
    # A distance is the root of at most 8 terms; the root of a rounded square near zero loses half of the digits.
    return 64 * EPS * max(distances) + 8 * np.sqrt(EPS) * EPS


@given(clouds(), cutoffs)
def test_gospa_of_a_set_and_itself_is_zero(X, c):
    found = gospa(X[::-1], X, c)
    assert found.distance == 0
    assert (found.detected, found.missed, found.false) == (len(X), 0, 0)


@given(clouds(), clouds(), cutoffs)
def test_gospa_is_symmetric_and_swaps_misses_with_false_alarms(X, Y, c):
    there, back = gospa(X, Y, c), gospa(Y, X, c)
    assert abs(there.distance - back.distance) <= _slack(there.distance)
    assert there.missed - there.false == back.false - back.missed == len(Y) - len(X)
    assert there.distance >= 0


@given(clouds(), clouds(), clouds(), cutoffs)
def test_gospa_holds_the_triangle_inequality(X, Y, Z, c):
    long, one, two = gospa(X, Z, c).distance, gospa(X, Y, c).distance, gospa(Y, Z, c).distance
    assert long <= one + two + _slack(long, one, two)


@given(clouds(), clouds(), cutoffs)
def test_gospa_separates_sets_is_bounded_and_charges_half_a_square_for_each_extra(X, Y, c):
    found = gospa(X, Y, c)
    assert found.distance <= c * np.sqrt((len(X) + len(Y)) / 2) * (1 + 8 * EPS)
    assert found.detected + found.missed == len(Y)
    assert found.detected + found.false == len(X)
    assert abs(gospa(X, Y[:0], c).distance - c * np.sqrt(len(X) / 2)) <= 8 * EPS * c * np.sqrt(len(X))
    if {tuple(x) for x in X} != {tuple(y) for y in Y}:
        # Squares of differences below 1e-154 underflow.
        gaps = np.abs(X[:, None] - Y).max(-1) if len(X) and len(Y) else np.ones(1)
        assume(((gaps == 0) | (gaps > 1e-150)).all())
        assert found.distance > 0


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_share_lies_in_its_interval_and_the_interval_in_the_unit(counts):
    k, n = counts
    found, mirrored = share(k, n), share(n - k, n)
    assert -EPS <= found.low <= found.value <= found.high + EPS <= 1 + 2 * EPS
    # 1 − p rounds, and the root's argument cancels at the ends.
    assert abs(found.low - (1 - mirrored.high)) <= 64 * EPS


@few
@given(
    arrays.arrays(np.float64, st.integers(2, 12), elements=st.just(0.0) | st.floats(1e-9, 100)),
    st.floats(0.1, 10),
    seeds,
)
def test_an_rmse_scales_with_its_errors_and_stays_among_them(squares, scale, seed):
    counts = np.ones_like(squares)
    found = root_mean_square(squares, counts, np.random.default_rng(seed))
    scaled = root_mean_square(squares * scale**2, counts, np.random.default_rng(seed))
    smallest, largest = np.sqrt(squares.min()), np.sqrt(squares.max())
    for one, other in zip(vars(found).values(), vars(scaled).values(), strict=True):
        assert smallest * (1 - RESAMPLES * EPS) <= one <= largest * (1 + RESAMPLES * EPS)
        assert abs(other - scale * one) <= 64 * EPS * scale * largest


@given(st.integers(2, 4), st.floats(0.01, 0.4), seeds)
def test_directions_keep_their_separation_inside_the_view(K, separation, seed):
    view = Config().scene
    azimuth, elevation = draw_directions(view, K, separation, np.random.default_rng(seed))
    apart = smallest_angle(azimuth, elevation)
    # Unit vectors round once each, so the chord of the angle is known to a few ulp of one.
    assert abs(apart - separation) <= 16 * EPS if K == 2 else apart >= separation
    assert (np.abs(azimuth) <= view.azimuth_max).all()
    assert (np.abs(elevation) <= view.elevation_max).all()


@functools.cache
def _configuration(symbols):
    return Config().replaced({"scene.symbols": symbols, "array.horizontal": 6, "array.vertical": 4})


@st.composite
def scenes(draw):
    cfg = _configuration(draw(st.sampled_from(["varying", "constant"])))
    return cfg, draw_scene(cfg, 3, draw(st.integers(0, 10_000)))


@given(scenes(), st.sets(names, min_size=1), seeds)
def test_level_zero_gives_the_exact_scene_bit_for_bit(drawn, chosen, seed):
    cfg, scene = drawn
    same = mismatched(scene, cfg, dict.fromkeys(chosen, 0.0), seed)
    for name, value in vars(scene).items():
        assert np.asarray(vars(same)[name]).tobytes() == np.asarray(value).tobytes(), name


@given(scenes(), names, st.floats(0.01, 0.5), seeds)
def test_equal_seeds_make_equal_errors_and_leave_the_scene_alone(drawn, name, level, seed):
    cfg, scene = drawn
    before = scene.y.tobytes()
    one, other = (mismatched(scene, cfg, {name: level}, seed) for _ in range(2))
    assert one.y.tobytes() == other.y.tobytes()
    assert scene.y.tobytes() == before
    assert one.y.tobytes() != before


@few
@given(st.integers(0, 10_000), names, st.floats(0.01, 0.1), st.floats(1.5, 3), seeds)
def test_the_measurement_s_error_grows_with_the_level_on_average(first, name, level, factor, seed):
    cfg = _configuration("varying")
    # A shift is felt as phase, so 0.1 of it would be two radians.
    level *= 0.1 if name == "position" else 1.0
    drawn = [draw_scene(cfg, 3, first + i) for i in range(4)]
    sizes = [
        np.mean([np.linalg.norm(mismatched(s, cfg, {name: x}, seed).y - s.y) ** 2 for s in drawn])
        for x in (level, factor * level)
    ]
    assert sizes[0] < sizes[1]


@few
@given(st.integers(1, 4), st.floats(-5, 30), st.floats(0.6, 9), st.integers(0, 10_000), names)
def test_cells_differ_in_what_their_axis_says_and_in_nothing_else(K, snr_db, reach, index, name):
    cfg = _configuration("varying")
    plain = Cell(K, snr_db, reach, 0.1, {}).scene(cfg, index)
    louder = Cell(K, snr_db + 10, reach, 0.1, {}).scene(cfg, index)
    wrong = Cell(K, snr_db, reach, 0.1, {name: 0.1}).scene(cfg, index)
    for other in (louder, wrong):
        for field in ("azimuth", "elevation", "range", "powers", "symbols", "H_full", "codes"):
            assert np.array_equal(vars(plain)[field], vars(other)[field]), field
    assert np.array_equal(plain.y_clean, louder.y_clean)
    assert plain.noise_variance == wrong.noise_variance
