"""The two grids of the field of view: uniform in the sine of both angles, on planes uniform in 1/range."""

from __future__ import annotations

import torch

from ris_verified.array.folded import FoldedGrid, folded
from ris_verified.config import Config


def spectrum_grid(cfg: Config, dtype: torch.dtype, device: torch.device) -> FoldedGrid:
    """Return the grid of `estimate.grid_*` in a real dtype."""
    e = cfg.estimate
    return folded(cfg.array, cfg.scene, (e.grid_range, e.grid_elevation, e.grid_azimuth), dtype, device)


def search_grid(cfg: Config, dtype: torch.dtype, device: torch.device, more: int = 0) -> FoldedGrid:
    """Return the grid of `estimate.search_*` in a real dtype, with an even number of angles more both ways."""
    e = cfg.estimate
    shape = (e.search_range, e.search_elevation + more, e.search_azimuth + more)
    return folded(cfg.array, cfg.scene, shape, dtype, device)
