"""Steering vectors: exact spherical wave, its derivatives, and the named approximations."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ris_verified.array.geometry import element_positions, to_cartesian
from ris_verified.config import ArrayConfig
from ris_verified.errors import ShapeError

Angles = Tensor | NDArray[np.floating] | Sequence[float] | float


def _real(values: Sequence[Angles]) -> list[Tensor]:
    """Return all on one device, in the widest precision among tensors and arrays, to which Python numbers adapt."""
    device = next((value.device for value in values if isinstance(value, Tensor)), None)
    tensors = [value if isinstance(value, Tensor) else _tensor(np.asarray(value)).to(device) for value in values]
    given = [t.dtype for v, t in zip(values, tensors, strict=True) if isinstance(v, Tensor | np.ndarray)]
    real = functools.reduce(torch.promote_types, [d for d in given if not _whole(d)] or [torch.float64])
    if real not in (torch.float32, torch.float64):
        raise ShapeError(
            f"dtypes {', '.join(map(str, given))}",
            where="azimuth, elevation, range",
            expected="float32, float64 or whole numbers",
        )
    return [tensor.to(real) for tensor in tensors]


def _tensor(array: NDArray[np.generic]) -> Tensor:
    # A copy of its own in the machine's byte order: views may run backwards, be read-only or foreign.
    return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("=")))


def _whole(dtype: torch.dtype) -> bool:
    return not (dtype.is_floating_point or dtype.is_complex)


def _broadcast(azimuth: Angles, elevation: Angles, range: Angles) -> tuple[Tensor, ...]:
    tensors = _real((azimuth, elevation, range))
    try:
        broadcast: tuple[Tensor, ...] = tuple(torch.broadcast_tensors(*tensors))
    except RuntimeError as error:
        shapes = [str(list(t.shape)) for t in tensors]
        usual, count = Counter(shapes).most_common(1)[0]
        raise ShapeError(
            "shapes " + ", ".join(shapes),
            where="azimuth, elevation, range",
            expected="shapes that broadcast" + (f" with {usual}" if count > 1 else ""),
        ) from error
    return broadcast


@functools.lru_cache(maxsize=8)
def _elements(array: ArrayConfig, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return y and z of the elements, `2 x N`, and their square distance from the centre, `N`."""
    # What is kept must serve training as well, whoever asks first.
    with torch.inference_mode(False):
        positions = element_positions(array, dtype, device)
        return positions[:, 1:].T.contiguous(), positions.square().sum(-1)


def _excess(array: ArrayConfig, along: Tensor, range: Tensor) -> tuple[Tensor, Tensor]:
    """Return ‖p − p_n‖ − r and ‖p − p_n‖, `... x N`, from the elements' positions along the direction of p.

    The excess is (‖p_n‖² − 2 p·p_n)/(‖p − p_n‖ + r): the plain difference cancels in float32.
    """
    r = range[..., None]
    numerator = _elements(array, along.dtype, along.device)[1] - 2 * r * along
    distance = (r.square() + numerator).clamp_min(0).sqrt()
    return numerator / (distance + r), distance


def steering(array: ArrayConfig, azimuth: Angles, elevation: Angles, range: Angles) -> Tensor:
    """Return the exact spherical-wave steering vector.

    a_n(p) = exp(−j k (‖p − p_n‖ − r)), times r/‖p − p_n‖ where `array.amplitude = "spherical"`.

    Args:
        array: the panel.
        azimuth: `...` real, radians.
        elevation: `...` real, radians.
        range: `...` real, metres; the three shapes broadcast.

    Returns:
        `... x N` complex of the widest precision among tensors and arrays (float64 where all are Python numbers).

    Raises:
        ShapeError: the shapes do not broadcast, or a precision below single.

    Source: Friedlander, "Localization of signals in the near-field of an antenna array", IEEE
    Trans. Signal Process. 67 (2019), spherical wavefront model.
    """
    azimuth, elevation, range = _broadcast(azimuth, elevation, range)
    plane, _ = _elements(array, azimuth.dtype, azimuth.device)
    direction = torch.stack([elevation.cos() * azimuth.sin(), elevation.sin()], -1)
    return _wave(array, *_excess(array, direction @ plane, range), range)


def _wave(array: ArrayConfig, excess: Tensor, distance: Tensor, range: Tensor) -> Tensor:
    wave = _turned(-array.wavenumber * excess)
    return wave * (range[..., None] / distance) if array.amplitude == "spherical" else wave


def _turned(phase: Tensor) -> Tensor:
    # `torch.polar` takes one number at a time: several times slower.
    return torch.complex(phase.cos(), phase.sin())


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
    plane, _ = _elements(array, azimuth.dtype, azimuth.device)
    sa, ca, se, ce = azimuth.sin(), azimuth.cos(), elevation.sin(), elevation.cos()
    turns = torch.stack([ce * sa, se, ce * ca, torch.zeros_like(sa), -se * sa, ce], -1).unflatten(-1, (3, 2))
    along, *across = (turns @ plane).unbind(-2)
    excess, distance = _excess(array, along, range)
    a, r = _wave(array, excess, distance, range), range[..., None]
    slopes = torch.stack([-r * across[0], -r * across[1], -(excess + along)], -2) / distance[..., None, :]
    if array.amplitude == "unit":
        rate = array.wavenumber * slopes
        da = torch.complex(a.imag[..., None, :] * rate, -a.real[..., None, :] * rate)
    else:
        growth = -slopes / distance[..., None, :]
        growth[..., 2, :] += 1 / r - 1 / distance
        da = a[..., None, :] * torch.complex(growth, -array.wavenumber * slopes)
    return a, da.mT


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
    return _turned(phase)


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
    return _turned(phase)
