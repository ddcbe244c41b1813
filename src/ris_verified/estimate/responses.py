"""Responses of the panel to sources, near or far, with their derivatives and absent sources marked."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ris_verified.array.geometry import element_positions, to_cartesian
from ris_verified.array.steering import planar_steering, steering_and_derivatives
from ris_verified.config import ArrayConfig
from ris_verified.errors import ShapeError
from ris_verified.shapes import describe


class Response(NamedTuple):
    """Steering vectors and their derivatives in p parameters; zero where a source is absent.

    Args:
        a: `B x K x N` complex.
        slopes: `B x K x N x p` complex.
        present: `B x K` bool.
    """

    a: Tensor
    slopes: Tensor
    present: Tensor


def near_response(array: ArrayConfig, azimuth: Tensor, elevation: Tensor, range: Tensor) -> Response:
    """Return exact spherical-wave responses with derivatives in azimuth, elevation and range.

    Args:
        array: the panel.
        azimuth: `B x K` real, radians; NaN marks an absent source.
        elevation: `B x K` real, radians.
        range: `B x K` real, metres.

    Returns:
        A `Response` with p = 3.

    Raises:
        ShapeError: the three do not share a shape `B x K`.
    """
    places, present = _places(azimuth, elevation, range)
    return _masked(*steering_and_derivatives(array, *places), present)


def planar_response(array: ArrayConfig, azimuth: Tensor, elevation: Tensor) -> Response:
    """Return far-field responses a_n = exp(j k u·p_n) with derivatives j k ∂u·p_n a_n in both angles.

    Args:
        array: the panel.
        azimuth: `B x K` real, radians; NaN marks an absent source.
        elevation: `B x K` real, radians.

    Returns:
        A `Response` with p = 2.

    Raises:
        ShapeError: the two do not share a shape `B x K`.
    """
    (azimuth, elevation), present = _places(azimuth, elevation)
    a = planar_steering(array, azimuth, elevation)
    positions = element_positions(array, azimuth.dtype, azimuth.device)
    one, quarter = torch.ones_like(azimuth), torch.pi / 2
    # ∂u/∂φ is cosθ times the unit vector a quarter turn on in azimuth, ∂u/∂θ the one a quarter turn up.
    along = torch.stack(
        [
            elevation.cos()[..., None] * (to_cartesian(azimuth + quarter, torch.zeros_like(one), one) @ positions.T),
            to_cartesian(azimuth, elevation + quarter, one) @ positions.T,
        ],
        -1,
    )
    return _masked(a, 1j * array.wavenumber * along * a[..., None], present)


def _places(*coordinates: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
    if len({value.shape for value in coordinates}) != 1 or coordinates[0].ndim != 2:
        names = ", ".join(("azimuth", "elevation", "range")[: len(coordinates)])
        raise ShapeError(", ".join(map(describe, coordinates)), where=names, expected="real [B, K] each")
    present = torch.isfinite(torch.stack(coordinates)).all(0)
    return tuple(torch.where(present, value, torch.ones_like(value)) for value in coordinates), present


def _masked(a: Tensor, slopes: Tensor, present: Tensor) -> Response:
    weight = present.to(a.dtype)[..., None]
    return Response(a * weight, slopes * weight[..., None], present)
