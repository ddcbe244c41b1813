"""Closed forms and measures that owe nothing to the stages under audit."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ris_verified.audit.context import Context
    from ris_verified.config import ArrayConfig


def element_grid(array: ArrayConfig) -> Any:
    """Return element positions `N x 3` float64 from the definition alone, in NumPy."""
    import numpy as np

    d = array.spacing_wavelengths * array.wavelength
    y = (np.arange(array.horizontal) - (array.horizontal - 1) / 2) * d
    z = (np.arange(array.vertical) - (array.vertical - 1) / 2) * d
    return np.array([(0.0, a, b) for b in z for a in y])


def wave(array: ArrayConfig, azimuth: Any, elevation: Any, range: Any) -> Any:
    """Return steering vectors `P x N` complex128 of any panel from the definition alone, in NumPy.

    Args:
        array: the panel.
        azimuth, elevation, range: `P` float64, radians and metres.
    """
    import numpy as np

    distance = _distances(array, azimuth, elevation, range)
    a = np.exp(-2j * np.pi / array.wavelength * (distance - range[:, None]))
    return a * (range[:, None] / distance) if array.amplitude == "spherical" else a


def wave_slopes(array: ArrayConfig, azimuth: Any, elevation: Any, range: Any) -> Any:
    """Return the derivatives of `wave` in azimuth, elevation and range, `3 x P x N` complex128, exact to rounding.

    Distances are real, so a step along the imaginary axis needs no difference of near numbers.

    Args:
        array, azimuth, elevation, range: as of `wave`.

    Source: Squire and Trapp, SIAM Rev. 40 (1998).
    """
    import numpy as np

    place, h = np.stack([azimuth, elevation, range]), 1e-30
    a, distance, found = wave(array, *place), _distances(array, *place), []
    for step in np.eye(3):
        slope = _distances(array, *(place + 1j * h * step[:, None])).imag / h
        phase = -2j * np.pi / array.wavelength * (slope - step[2])
        faded = step[2] / range[:, None] - slope / distance if array.amplitude == "spherical" else 0.0
        found.append(a * (phase + faded))
    return np.stack(found)


def _distances(array: ArrayConfig, azimuth: Any, elevation: Any, range: Any) -> Any:
    """Return the distance from each position to each element, `P x N`; complex where the position is."""
    import numpy as np

    flat = np.cos(elevation)
    p = range[:, None] * np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)], -1)
    return np.sqrt(np.sum((p[:, None] - element_grid(array)) ** 2, axis=-1))


def closed_form(context: Context, azimuth: Any, elevation: Any, range: Any) -> Any:
    """Return `wave` for the audited panel."""
    return wave(context.config.array, azimuth, elevation, range)


def other_panel(array: ArrayConfig) -> ArrayConfig:
    """Return a panel of another shape, wavelength and spacing: a hard-coded number shows on it."""
    return dataclasses.replace(
        array,
        horizontal=array.horizontal + 1,
        vertical=array.vertical + 3,
        wavelength=1.3 * array.wavelength,
        spacing_wavelengths=0.8 * array.spacing_wavelengths,
    )


def view_grid(context: Context) -> tuple[Tensor, Tensor, Tensor]:
    """Return positions over the field of view: 5 azimuths, 3 elevations, 3 ranges, float64, flat."""
    import torch

    s = context.config.scene
    axes = [
        torch.linspace(-0.9, 0.9, 5, dtype=torch.float64) * s.azimuth_max,
        torch.linspace(-0.9, 0.9, 3, dtype=torch.float64) * s.elevation_max,
        1 / torch.linspace(1 / s.range_max, 1 / s.range_min, 3, dtype=torch.float64),
    ]
    azimuth, elevation, range = (axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij"))
    return azimuth, elevation, range


def view_points(context: Context) -> tuple[Tensor, Tensor, Tensor]:
    """Return `view_grid`, the corners of the view and 400 random positions, half of them uniform in 1/range."""
    import numpy as np
    import torch

    s, rng = context.config.scene, np.random.default_rng([context.seed, 804])
    low, high = [-s.azimuth_max, -s.elevation_max, s.range_min], [s.azimuth_max, s.elevation_max, s.range_max]
    drawn = rng.uniform(low, high, (400, 3))
    drawn[::2, 2] = 1 / rng.uniform(1 / s.range_max, 1 / s.range_min, 200)
    corners = np.stack(np.meshgrid(*zip(low, high, strict=True)), -1).reshape(-1, 3)
    more = torch.from_numpy(np.concatenate([corners, drawn]))
    return tuple(torch.cat([a, b]) for a, b in zip(view_grid(context), more.unbind(-1), strict=True))  # type: ignore[return-value]


def relative(a: Tensor, b: Tensor) -> float:
    """Return the largest ‖a − b‖/‖b‖ over a batch; infinite for unequal shapes."""
    if a.shape != b.shape:
        return float("inf")
    difference = (a - b).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)
    return float(difference.max())


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors hold the same numbers in the same places, NaN beside NaN."""
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def top_share(R: Tensor, count: int) -> float:
    """Return the least share of the `count` largest eigenvalues in the trace, over a batch `B x N x N`."""
    import torch

    values = torch.linalg.eigvalsh(R.to(torch.complex128))
    return float((values[:, -count:].sum(-1) / values.sum(-1)).min())


def numerical_rank(R: Tensor, dtype: torch.dtype | None = None) -> int:
    """Return the largest number of eigenvalues above 4 eps·N of the largest, over a batch.

    Args:
        R: `B x N x N` complex, Hermitian; decomposed in complex128.
        dtype: the precision that R was computed in, by default its own.
    """
    import torch

    from ris_verified.contracts import tolerance

    values = torch.linalg.eigvalsh(R.detach().to(torch.complex128))
    floor = values[:, -1:] * tolerance(dtype or R.dtype, R.shape[-1])
    return int((values > floor).sum(-1).max())
