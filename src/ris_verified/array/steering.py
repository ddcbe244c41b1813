"""Steering vectors: exact spherical wave, its derivatives, and the named approximations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ris_verified.array.geometry import element_positions, to_cartesian
from ris_verified.config import ArrayConfig
from ris_verified.errors import ShapeError

Angles = Tensor | NDArray[np.floating] | Sequence[float] | float


def _real(value: Angles) -> Tensor:
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    return tensor if tensor.is_floating_point() else tensor.double()


def _broadcast(azimuth: Angles, elevation: Angles, range: Angles) -> tuple[Tensor, ...]:
    tensors = [_real(value) for value in (azimuth, elevation, range)]
    try:
        broadcast: tuple[Tensor, ...] = tuple(torch.broadcast_tensors(*tensors))
    except RuntimeError as error:
        raise ShapeError(
            "shapes " + ", ".join(str(list(t.shape)) for t in tensors),
            where="azimuth, elevation, range",
            expected="shapes that broadcast",
        ) from error
    return broadcast


def _excess(positions: Tensor, azimuth: Tensor, elevation: Tensor, range: Tensor) -> Tensor:
    # ‖p − p_n‖ − r as (‖p_n‖² − 2 p·p_n)/(‖p − p_n‖ + r): the plain difference cancels in float32.
    p = to_cartesian(azimuth, elevation, range)
    distance = (p[..., None, :] - positions).norm(dim=-1)
    square = positions.square().sum(-1)
    excess: Tensor = (square - 2 * p @ positions.T) / (distance + range[..., None])
    return excess


def steering(array: ArrayConfig, azimuth: Angles, elevation: Angles, range: Angles) -> Tensor:
    """Return the exact spherical-wave steering vector.

    a_n(p) = exp(−j k (‖p − p_n‖ − r)), times r/‖p − p_n‖ where `array.amplitude = "spherical"`.

    Args:
        array: the panel.
        azimuth: `...` real, radians.
        elevation: `...` real, radians.
        range: `...` real, metres; the three shapes broadcast.

    Returns:
        `... x N` complex of the inputs' precision (Python numbers count as float64).

    Raises:
        ShapeError: the shapes do not broadcast.

    Source: Friedlander, "Localization of signals in the near-field of an antenna array", IEEE
    Trans. Signal Process. 67 (2019), spherical wavefront model.
    """
    azimuth, elevation, range = _broadcast(azimuth, elevation, range)
    positions = element_positions(array, azimuth.dtype, azimuth.device)
    excess = _excess(positions, azimuth, elevation, range)
    gain = torch.ones_like(excess)
    if array.amplitude == "spherical":
        gain = range[..., None] / (range[..., None] + excess)
    return torch.polar(gain, -array.wavenumber * excess)


def steering_and_derivatives(
    array: ArrayConfig, azimuth: Tensor, elevation: Tensor, range: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the steering vector and its derivative in azimuth, elevation and range.

    ∂a_n = a_n (−j k (∂‖p − p_n‖ − ∂r) + ∂ log gain), ∂‖p − p_n‖ = (p − p_n)·∂p/‖p − p_n‖.

    Args:
        array: the panel.
        azimuth: `...` real, radians.
        elevation: `...` real, radians.
        range: `...` real, metres.

    Returns:
        `... x N` complex and `... x N x 3` complex (per radian, per radian, per metre).

    Raises:
        ShapeError: the shapes do not broadcast.
    """
    azimuth, elevation, range = _broadcast(azimuth, elevation, range)
    positions = element_positions(array, azimuth.dtype, azimuth.device)
    a = steering(array, azimuth, elevation, range)
    p = to_cartesian(azimuth, elevation, range)
    r = range[..., None]
    excess = _excess(positions, azimuth, elevation, range)
    distance = r + excess
    sa, ca, se, ce = azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos()
    zero = torch.zeros_like(sa)
    d_azimuth = r * torch.stack([-ce * sa, ce * ca, zero], -1)
    d_elevation = r * torch.stack([-se * ca, -se * sa, ce], -1)
    # p·∂p = 0 for the angles, so only −p_n·∂p remains; for the range (p − p_n)·p/r − distance
    # is written with the excess to keep float32 exact.
    slope_angles = -torch.stack([d_azimuth, d_elevation], -2) @ positions.T
    slope_angles = slope_angles.transpose(-1, -2) / distance[..., None]
    along = p @ positions.T / r
    slope_range = -(excess + along) / distance
    slopes = torch.cat([slope_angles, slope_range[..., None]], -1)
    rate = -1j * array.wavenumber * slopes
    if array.amplitude == "spherical":
        rate = rate - slopes / distance[..., None]
        rate[..., 2] = rate[..., 2] + 1 / r - 1 / distance
    return a, a[..., None] * rate


def planar_steering(array: ArrayConfig, azimuth: Angles, elevation: Angles) -> Tensor:
    """Return the far-field limit a_n = exp(j k u·p_n), u the unit vector to the source.

    Args:
        array: the panel.
        azimuth: `...` real, radians.
        elevation: `...` real, radians.

    Returns:
        `... x N` complex. Not valid at the ranges of this library; see `steering`.
    """
    azimuth, elevation, one = _broadcast(azimuth, elevation, 1.0)
    positions = element_positions(array, azimuth.dtype, azimuth.device)
    phase = array.wavenumber * (to_cartesian(azimuth, elevation, one.to(azimuth.dtype)) @ positions.T)
    return torch.polar(torch.ones_like(phase), phase)


def fresnel_steering(array: ArrayConfig, azimuth: Angles, elevation: Angles, range: Angles) -> Tensor:
    """Return the second-order (Fresnel) approximation of `steering`.

    a_n = exp(j k (u·p_n − (‖p_n‖² − (u·p_n)²)/(2r))).

    Args:
        array: the panel.
        azimuth: `...` real, radians.
        elevation: `...` real, radians.
        range: `...` real, metres.

    Returns:
        `... x N` complex. Correlates with the exact vector as badly as 0.6 at the edge of the view.
    """
    azimuth, elevation, range = _broadcast(azimuth, elevation, range)
    positions = element_positions(array, azimuth.dtype, azimuth.device)
    along = to_cartesian(azimuth, elevation, torch.ones_like(range)) @ positions.T
    bend = (positions.square().sum(-1) - along.square()) / (2 * range[..., None])
    phase = array.wavenumber * (along - bend)
    return torch.polar(torch.ones_like(phase), phase)
