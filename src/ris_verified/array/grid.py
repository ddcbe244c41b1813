"""Grids over the field of view."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ris_verified.config import SceneConfig


def _midpoints(low: float, high: float, count: int) -> Tensor:
    return low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count


def view_grid(scene: SceneConfig, shape: tuple[int, int, int]) -> Tensor:
    """Return the centres of equal cells in sine of azimuth, sine of elevation and 1/range.

    Args:
        scene: the field of view.
        shape: R range planes, V elevations, H azimuths; azimuth is fastest.

    Returns:
        `(R·V·H) x 3` float64: azimuth (rad), elevation (rad), 1/range (1/m).
    """
    planes, rows, columns = shape
    width, height = math.sin(scene.azimuth_max), math.sin(scene.elevation_max)
    inverse, elevation, azimuth = torch.meshgrid(
        _midpoints(1 / scene.range_max, 1 / scene.range_min, planes),
        _midpoints(-height, height, rows).asin(),
        _midpoints(-width, width, columns).asin(),
        indexing="ij",
    )
    return torch.stack([azimuth, elevation, inverse], -1).flatten(0, 2)
