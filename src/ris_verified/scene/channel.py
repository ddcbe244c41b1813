"""The Rician channel from the panel to the base station."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from ris_verified.array.geometry import element_positions
from ris_verified.config import ArrayConfig, SceneConfig


@functools.lru_cache(maxsize=8)
def _elements(array: ArrayConfig) -> NDArray[np.float64]:
    # A pure function of a frozen configuration; read-only, for every scene shares it.
    positions: NDArray[np.float64] = element_positions(array).numpy()
    positions.setflags(write=False)
    return positions


def line_of_sight(array: ArrayConfig, scene: SceneConfig, azimuth: float, elevation: float) -> NDArray[np.complex128]:
    """Return the unit-modulus exact spherical response between panel and base station.

    h_mn = exp(−j k ‖q_m − p_n‖); q_m is a half-wavelength line along y, `base_station_distance`
    away in the given direction.

    Args:
        array: the panel.
        scene: gives the number of antennas and the distance.
        azimuth: direction of the base station, radians.
        elevation: direction of the base station, radians.

    Returns:
        `M x N` complex128.
    """
    flat = np.cos(elevation)
    direction = np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
    antennas = np.zeros((scene.antennas, 3))
    antennas[:, 1] = (np.arange(scene.antennas) - (scene.antennas - 1) / 2) * array.wavelength / 2
    antennas += scene.base_station_distance * direction
    # One axis at a time: a reduction over a last axis of three is slower than all the rest.
    x, y, z = (antennas[:, None, axis] - _elements(array)[:, axis] for axis in range(3))
    phase = -array.wavenumber * np.sqrt(x * x + y * y + z * z)
    response = np.empty(phase.shape, np.complex128)
    response.real, response.imag = np.cos(phase), np.sin(phase)
    return response


def draw_channel(
    array: ArrayConfig, scene: SceneConfig, rician_factor: float, rng: np.random.Generator
) -> NDArray[np.complex128]:
    """Draw H = (√(κ/(κ+1)) H_LOS + √(1/(κ+1)) H_NLOS)/√N, so that E|h|² = 1/N.

    Entries are rounded to half precision, in which they are stored: what is stored is then exactly
    what the measurement was made with.

    Args:
        array: the panel.
        scene: sizes and field of view, in which the base station stands too.
        rician_factor: κ, linear.
        rng: source of randomness.

    Returns:
        `M x N` complex128.
    """
    azimuth = rng.uniform(-scene.azimuth_max, scene.azimuth_max)
    elevation = rng.uniform(-scene.elevation_max, scene.elevation_max)
    direct = line_of_sight(array, scene, azimuth, elevation)
    shape = (*direct.shape, 2)
    scattered = rng.standard_normal(shape).view(np.complex128)[..., 0] / np.sqrt(2)
    share = rician_factor / (rician_factor + 1)
    H = (np.sqrt(share) * direct + np.sqrt(1 - share) * scattered) / np.sqrt(array.elements)
    rounded: NDArray[np.complex128] = H.view(np.float64).astype(np.float16).astype(np.float64).view(np.complex128)
    return rounded
