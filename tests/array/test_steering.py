"""Steering vectors against the oracles and against their contract."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from ris_verified.array.geometry import element_positions, to_cartesian
from ris_verified.array.steering import fresnel_steering, planar_steering, steering, steering_and_derivatives
from ris_verified.config import ArrayConfig
from ris_verified.errors import ShapeError

PLACES = [(0.3, 0.1, 0.5), (-0.9, 0.4, 3.0), (0.2, -0.2, 10.0), (1.0, 0.5, 0.7)]


class SteeringContract:
    """What every implementation of the exact steering stage must do."""

    steer: Callable[..., Tensor]

    def test_agrees_with_the_oracles_in_both_precisions(self, oracle):
        for index in range(5):
            scene = oracle(index)
            for dtype, bound in ((np.float64, 1e-10), (np.float32, 1e-5)):
                place = [torch.from_numpy(scene[name].astype(dtype)) for name in ("azimuth", "elevation", "range")]
                a = type(self).steer(ArrayConfig(), *place)
                assert a.dtype == (torch.complex128 if dtype == np.float64 else torch.complex64)
                assert np.abs(a.numpy().T - scene["steering"]).max() <= bound

    def test_is_the_phase_of_the_path_difference(self):
        array = ArrayConfig(horizontal=4, vertical=3)
        place = torch.tensor(PLACES, dtype=torch.float64)
        p = to_cartesian(*place.unbind(-1))
        path = (p[:, None] - element_positions(array)).norm(dim=-1) - place[:, 2:]
        expected = torch.exp(-1j * array.wavenumber * path)
        assert torch.allclose(type(self).steer(array, *place.unbind(-1)), expected, rtol=0, atol=1e-12)


class TestSteering(SteeringContract):
    steer = staticmethod(steering)


class TestSteeringBesideItsDerivatives(SteeringContract):
    steer = staticmethod(lambda *arguments: steering_and_derivatives(*arguments)[0])


def test_numbers_and_arrays_are_accepted():
    array = ArrayConfig()
    assert steering(array, 0.1, 0.2, 3.0).shape == (144,)
    assert steering(array, 0.1, 0.2, 3.0).dtype == torch.complex128
    assert steering(array, np.zeros(3), 0.2, np.ones((2, 1))).shape == (2, 3, 144)


def test_spherical_amplitude_is_range_over_distance():
    array = ArrayConfig(amplitude="spherical")
    place = torch.tensor(PLACES, dtype=torch.float64)
    distance = (to_cartesian(*place.unbind(-1))[:, None] - element_positions(array)).norm(dim=-1)
    assert torch.allclose(steering(array, *place.unbind(-1)).abs(), place[:, 2:] / distance, rtol=1e-12)


def test_approximations_differ_from_exact_where_the_design_says_so():
    array = ArrayConfig()
    edge = np.radians(60), np.radians(30)
    exact = steering(array, *edge, 0.5)
    assert abs(torch.vdot(fresnel_steering(array, *edge, 0.5), exact)) / 144 < 0.75
    assert abs(torch.vdot(planar_steering(array, *edge), exact)) / 144 < 0.5
    assert abs(torch.vdot(fresnel_steering(array, 0.0, 0.0, 10.0), steering(array, 0.0, 0.0, 10.0))) / 144 > 0.9999
    # What Fresnel leaves out is k |p|³/(2r²) at most, wherever the source is.
    for range in (4.0, 8.0):
        apart = (fresnel_steering(array, *edge, range) - steering(array, *edge, range)).abs().max()
        size = float(element_positions(array).norm(dim=-1).max())
        assert float(apart) < 1.2 * array.wavenumber * size**3 / (2 * range**2)


def test_shapes_that_do_not_broadcast_are_named():
    with pytest.raises(ShapeError, match=r"\[3\].*\[2\].*broadcast"):
        steering(ArrayConfig(), np.zeros(3), np.zeros(2), 1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("form", [steering, fresnel_steering])
def test_numbers_take_the_precision_of_the_tensors_beside_them(dtype, form):
    array, azimuth = ArrayConfig(), torch.tensor([0.1, -0.3], dtype=dtype)
    whole = form(array, azimuth, torch.full_like(azimuth, 0.2), torch.full_like(azimuth, 2.0))
    assert whole.dtype == dtype.to_complex()
    for mixed in (form(array, azimuth, 0.2, 2), form(array, azimuth, np.array(0.2, dtype=azimuth.numpy().dtype), 2.0)):
        assert torch.equal(mixed, whole)
    assert planar_steering(array, azimuth, 0.2).dtype == dtype.to_complex()


def test_the_widest_precision_wins_before_anything_is_computed():
    array, azimuth = ArrayConfig(), torch.tensor([0.1, -0.3])
    mixed = steering(array, azimuth, torch.tensor(0.2, dtype=torch.float64), 2.0)
    assert torch.equal(mixed, steering(array, azimuth.double(), 0.2, 2.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex64])
def test_other_precisions_are_refused(dtype):
    with pytest.raises(ShapeError, match=f"{dtype}.*float32, float64"):
        steering(ArrayConfig(), torch.ones(2, dtype=dtype), 0.0, 1.0)


@pytest.mark.parametrize("kind", ["backwards", "foreign", "read-only"])
def test_arrays_of_any_kind_are_angles(kind: str) -> None:
    azimuth = np.linspace(-1, 1, 5)
    given = {"backwards": azimuth[::-1].copy()[::-1], "foreign": azimuth.astype(">f8"), "read-only": azimuth.copy()}[
        kind
    ]
    given.flags.writeable = kind != "read-only"
    assert torch.equal(steering(ArrayConfig(), given, 0.1, 2.0), steering(ArrayConfig(), azimuth, 0.1, 2.0))
