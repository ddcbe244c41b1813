"""The chart of positions that the panel resolves about uniformly: azimuth, elevation and 1/range."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ris_verified.array.steering import steering_and_derivatives
from ris_verified.config import ArrayConfig, Config
from ris_verified.estimate.result import Peaks


def to_parameters(peaks: Peaks) -> Tensor:
    """Return `B x K x 3` real: azimuth, elevation, 1/range."""
    return torch.stack([peaks.azimuth, peaks.elevation, 1 / peaks.range], -1)


def to_peaks(parameters: Tensor) -> Peaks:
    """Undo `to_parameters`."""
    azimuth, elevation, inverse = parameters.unbind(-1)
    return Peaks(azimuth, elevation, 1 / inverse)


def limits(cfg: Config, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest azimuth, elevation and 1/range of the field of view, `3` each."""
    s = cfg.scene
    high = like.new_tensor([s.azimuth_max, s.elevation_max, 1 / s.range_min])
    low = like.new_tensor([-s.azimuth_max, -s.elevation_max, 1 / s.range_max])
    return low, high


def clamped(parameters: Tensor, cfg: Config) -> Tensor:
    """Keep azimuth, elevation and 1/range inside the field of view; NaN stays NaN."""
    return parameters.clamp(*limits(cfg, parameters))


def widened(parameters: Tensor, cfg: Config, dtype: torch.dtype) -> Tensor:
    """Return parameters in another real dtype; what lies on a limit of the field of view stays on it."""
    low, high = limits(cfg, parameters)
    wide = parameters.to(dtype)
    lowest, highest = limits(cfg, wide)
    return torch.where(parameters <= low, lowest, torch.where(parameters >= high, highest, wide))


def remoteness(parameters: Tensor, cfg: Config) -> Tensor:
    """Return the logarithm of the density of places over that uniform in 1/range, up to a constant, `...` real.

    Sources are uniform in azimuth, elevation and range: the density in 1/range grows with range². Zero where
    `estimate.prior = "none"`.

    Args:
        parameters: `... x 3` real.
        cfg: reads `estimate.prior`.
    """
    return (0.0 if cfg.estimate.prior == "none" else -2.0) * parameters[..., 2].log()


def with_slopes(parameters: Tensor, array: ArrayConfig) -> tuple[Tensor, Tensor]:
    """Return the steering vectors, and the derivatives of each in azimuth, elevation and 1/range.

    Args:
        parameters: `B x K x 3` real.
        array: the panel.

    Returns:
        `B x K x N` and `B x K x 3 x N` complex.
    """
    azimuth, elevation, inverse = parameters.unbind(-1)
    a, slopes = steering_and_derivatives(array, azimuth, elevation, 1 / inverse)
    slopes = slopes.mT
    slopes[:, :, 2] *= -inverse.square().reciprocal()[..., None]
    return a, slopes


def by_order(parameters: Tensor, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield scenes with equally many sources, so that no product is spent on absent ones.

    Args:
        parameters: `B x K x 3` real, NaN rows are absent.
        most: scenes at a time.

    Yields:
        Indices of the scenes `b`, and of their present rows `b x k`.
    """
    present = torch.isfinite(parameters).all(-1)
    first = torch.argsort((~present).int(), dim=1, stable=True)
    order = present.sum(-1)
    for k in order[order > 0].unique().tolist():
        for scenes in torch.nonzero(order == k)[:, 0].split(most):
            yield scenes, first[scenes, :k]
