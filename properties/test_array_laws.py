"""Laws of array and steering over generated panels and positions."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from ris_verified.array.geometry import element_positions
from ris_verified.array.steering import planar_steering, steering, steering_and_derivatives
from ris_verified.config import ArrayConfig

arrays = st.builds(
    ArrayConfig,
    horizontal=st.integers(1, 14),
    vertical=st.integers(1, 14),
    wavelength=st.floats(0.01, 2.0),
    spacing_wavelengths=st.floats(0.1, 1.0),
)
angles = st.floats(-1.0, 1.0)
# Ranges are in apertures, so that every panel is seen from its near field and from afar.
apertures = st.floats(0.6, 1e3)


def _range(array: ArrayConfig, times: float) -> float:
    return times * array.spacing * math.hypot(array.horizontal, array.vertical)


def _eps(array: ArrayConfig, length: float) -> float:
    return 64 * torch.finfo(torch.float64).eps * (1 + array.wavenumber * length)


@given(arrays)
def test_positions_are_centred_and_evenly_spaced(array):
    grid = element_positions(array).reshape(array.vertical, array.horizontal, 3)
    assert grid.mean((0, 1)).abs().max() <= 1e-14 * array.spacing * array.elements
    assert torch.allclose(grid.diff(dim=1)[..., 1], torch.tensor(array.spacing, dtype=torch.float64), rtol=1e-12)
    assert torch.allclose(grid.diff(dim=0)[..., 2], torch.tensor(array.spacing, dtype=torch.float64), rtol=1e-12)


@given(arrays, angles, angles, apertures)
def test_modulus_is_one(array, azimuth, elevation, times):
    a = steering(array, azimuth, elevation, _range(array, times))
    assert (a.abs() - 1).abs().max() <= 8 * torch.finfo(torch.float64).eps


@given(arrays, angles, angles)
def test_far_field_limit_is_the_plane_wave(array, azimuth, elevation):
    aperture = _range(array, 1.0)
    far = 1e6 * aperture * max(1.0, aperture / array.wavelength)
    difference = (steering(array, azimuth, elevation, far) - planar_steering(array, azimuth, elevation)).abs().max()
    assert difference <= array.wavenumber * aperture**2 / (2 * far) + _eps(array, aperture)


@given(arrays, angles, angles, apertures)
def test_mirror_images_swap_elements(array, azimuth, elevation, times):
    r = _range(array, times)
    a = steering(array, azimuth, elevation, r).reshape(array.vertical, array.horizontal)
    tolerance = _eps(array, _range(array, 1.0))
    flipped = steering(array, -azimuth, elevation, r).reshape(a.shape)
    assert (flipped - a.flip(1)).abs().max() <= tolerance
    flipped = steering(array, azimuth, -elevation, r).reshape(a.shape)
    assert (flipped - a.flip(0)).abs().max() <= tolerance


@given(arrays, angles, angles, apertures, st.sampled_from(["unit", "spherical"]))
def test_derivatives_equal_finite_differences(array, azimuth, elevation, times, amplitude):
    array = ArrayConfig(**{**vars(array), "amplitude": amplitude})
    place = torch.tensor([azimuth, elevation, _range(array, times)], dtype=torch.float64)
    _, slopes = steering_and_derivatives(array, *place)
    aperture = _range(array, 1.0)
    scale = torch.tensor([array.wavenumber * aperture] * 2 + [array.wavenumber * min(1, 1 / times)]).double() + 1
    for axis in range(3):
        unit = place[2] if axis == 2 else 1.0
        step = 1e-5 * unit / scale[axis].clamp_min(1)
        shift = torch.zeros(3, dtype=torch.float64)
        shift[axis] = step
        difference = (steering(array, *(place + shift)) - steering(array, *(place - shift))) / (2 * step)
        # Truncation is h²f'''/6 with f''' ≲ (phase slope)³; rounding is eps · phase/h.
        slope = slopes[:, axis].abs().max() + scale[axis] / unit
        bound = slope * (step * slope) ** 2 + _eps(array, aperture) / step
        assert (difference - slopes[:, axis]).abs().max() <= bound


@given(arrays, angles, angles, apertures, st.floats(0.1, 10.0))
def test_only_lengths_in_wavelengths_matter(array, azimuth, elevation, times, factor):
    scaled = ArrayConfig(**{**vars(array), "wavelength": array.wavelength * factor})
    a = steering(array, azimuth, elevation, _range(array, times))
    b = steering(scaled, azimuth, elevation, _range(scaled, times))
    assert (a - b).abs().max() <= _eps(array, _range(array, 1.0))
