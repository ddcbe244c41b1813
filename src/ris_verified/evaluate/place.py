"""Positions for one cell of a sweep: in a band of range, and apart from each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ris_verified.config import SceneConfig
from ris_verified.errors import InputError

BAND = 0.1
ATTEMPTS = 2000
Real = NDArray[np.float64]


def unit_vectors(azimuth: Real, elevation: Real) -> Real:
    """Return directions as unit vectors, `... x 3`."""
    flat = np.cos(elevation)
    return np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], -1)


def smallest_angle(azimuth: Real, elevation: Real) -> float:
    """Return the smallest angle between two of the directions in radians, infinite for a single one.

    2 arcsin(‖u_i − u_j‖/2), which unlike the arc cosine keeps its digits near zero.
    """
    u = unit_vectors(azimuth, elevation)
    chord = np.linalg.norm(u[:, None] - u, axis=-1)[np.triu_indices(len(u), 1)]
    return float(2 * np.arcsin(np.minimum(chord.min(), 2) / 2)) if chord.size else np.inf


def _uniform(scene: SceneConfig, K: int, rng: np.random.Generator) -> tuple[Real, Real]:
    azimuth = rng.uniform(-scene.azimuth_max, scene.azimuth_max, K)
    return azimuth, rng.uniform(-scene.elevation_max, scene.elevation_max, K)


def _pair(scene: SceneConfig, separation: float, rng: np.random.Generator) -> tuple[Real, Real]:
    """Return a direction and another at exactly `separation` from it, in a random bearing; maybe out of view."""
    azimuth, elevation = _uniform(scene, 1, rng)
    bearing = rng.uniform(-np.pi, np.pi, 1)
    u = unit_vectors(azimuth, elevation)[0]
    east = np.array([-np.sin(azimuth[0]), np.cos(azimuth[0]), 0.0])
    north = np.cross(u, east)
    v = np.cos(separation) * u + np.sin(separation) * (np.cos(bearing) * east + np.sin(bearing) * north)
    second = np.arctan2(v[1], v[0]), np.arcsin(np.clip(v[2], -1, 1))
    return np.append(azimuth, second[0]), np.append(elevation, second[1])


def draw_directions(scene: SceneConfig, K: int, separation: float, rng: np.random.Generator) -> tuple[Real, Real]:
    """Draw K directions, uniform in azimuth and elevation, under a law on their separation.

    Two sources stand exactly `separation` apart where it is above zero, more sources at least that far.

    Args:
        scene: the field of view.
        K: number of sources.
        separation: angle between directions, radians; 0 leaves them free.
        rng: source of randomness.

    Returns:
        azimuth and elevation, `K` float64, radians.

    Raises:
        InputError: so many sources so far apart do not fit into the field of view.
    """
    for _ in range(ATTEMPTS):
        if K == 2 and separation > 0:
            azimuth, elevation = _pair(scene, separation, rng)
            good = bool(
                (np.abs(azimuth) <= scene.azimuth_max).all() and (np.abs(elevation) <= scene.elevation_max).all()
            )
        else:
            azimuth, elevation = _uniform(scene, K, rng)
            good = smallest_angle(azimuth, elevation) >= separation
        if good:
            return azimuth, elevation
    raise InputError(
        f"{separation:g} rad between {K} sources was not met in {ATTEMPTS} draws",
        where="separation",
        expected=f"a field of view (±{scene.azimuth_max:g} by ±{scene.elevation_max:g} rad) that has room",
        remedy="ask for a smaller separation or fewer sources",
    )


def draw_ranges(scene: SceneConfig, K: int, centre: float | None, rng: np.random.Generator) -> Real:
    """Draw K ranges, uniform within ±10 % of `centre`, or over the whole view where it is None.

    Args:
        scene: the field of view, which the band never leaves.
        K: number of sources.
        centre: metres.
        rng: source of randomness.

    Returns:
        `K` float64, metres.

    Raises:
        InputError: the centre lies outside the field of view.
    """
    if centre is None:
        return rng.uniform(scene.range_min, scene.range_max, K)
    if not scene.range_min <= centre <= scene.range_max:
        raise InputError(
            f"{centre:g} m", where="range", expected=f"from {scene.range_min:g} to {scene.range_max:g} m, the view"
        )
    low, high = np.clip(centre * np.array([1 - BAND, 1 + BAND]), scene.range_min, scene.range_max)
    return rng.uniform(low, high, K)
