"""The tail bounds of random numbers: sound draws pass, each slip fails in the law that it breaks."""

from __future__ import annotations

import numpy as np
import pytest

from ris_verified.audit.moments import complex_normal, distribution, exponential_bound, uniform, weighted_bound

AXES = ("scenes", "snapshots", "antennas")


def normal(seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal((30, 16, 16, 2))
    return np.asarray(values.view(np.complex128)[..., 0] / np.sqrt(2))


def broken(z: np.ndarray) -> set[str]:
    return {m.message for m in complex_normal(z, AXES, "noise", "here") if not m.passed}


@pytest.mark.parametrize("seed", range(50))
def test_sound_draw_passes(seed: int) -> None:
    assert not broken(normal(seed))


@pytest.mark.parametrize(
    ("slip", "law"),
    [
        (lambda z: np.sqrt(2) * z.real + 0j, "|E z²|"),
        (lambda z: z * np.sqrt(1.3), "mean power"),
        (lambda z: np.repeat(z[:, :1], 16, 1), "noise over snapshots"),
        (lambda z: np.repeat(z[:1], 30, 0), "noise over scenes"),
        (lambda z: (z + np.roll(z, 1, 2)) / np.sqrt(2), "noise over antennas"),
        (lambda z: np.exp(2j * np.pi * np.random.default_rng(1).random(z.shape)), "real part"),
        (lambda z: z + 0.2, "real part"),
        (lambda z: z * np.sqrt(2) * (np.arange(16) % 2 == 0)[:, None], "mean power at one of 16 snapshots"),
    ],
)
def test_each_slip_breaks_its_law(slip: object, law: str) -> None:
    assert callable(slip)
    assert any(law in message for message in broken(slip(normal())))


def test_bounds_shrink_with_the_square_root_of_the_count() -> None:
    assert exponential_bound(10_000) == pytest.approx(0.0652, abs=1e-3)
    assert weighted_bound(np.ones(400)) == pytest.approx(exponential_bound(400))


def test_distance_of_distributions_is_exact() -> None:
    found = distribution(np.array([0.5, 0.5]), lambda v: v, "halves", "here")
    assert found.measured == pytest.approx(0.5)


def test_uniform_sees_limits_and_shape() -> None:
    values = np.random.default_rng(0).uniform(2, 4, 2000)
    assert all(m.passed for m in uniform(values, 2, 4, "range", "here"))
    assert not uniform(values, 2.1, 4, "range", "here")[0].passed
    assert not uniform(2 + (values - 2) ** 2 / 2, 2, 4, "range", "here")[1].passed
    assert [m.passed for m in uniform(np.full(9, 3.0), 3, 3, "κ", "here")] == [True]
