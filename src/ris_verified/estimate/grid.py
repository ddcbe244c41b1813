"""The grid of the spectrum: uniform in the sine of both angles, on range planes uniform in 1/range."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ris_verified.array.grid import view_grid
from ris_verified.array.steering import steering
from ris_verified.config import ArrayConfig, Config, SceneConfig


@functools.lru_cache(maxsize=8)
def _grid(
    array: ArrayConfig,
    scene: SceneConfig,
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    parameters = view_grid(scene, shape)
    azimuth, elevation, inverse = parameters.unbind(-1)
    atoms = steering(array, azimuth, elevation, 1 / inverse)
    atoms = atoms / torch.linalg.vector_norm(atoms, dim=-1, keepdim=True)
    complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
    return parameters.to(device, dtype), atoms.to(device, complex_dtype)


def spectrum_grid(cfg: Config, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the grid of the spectrum.

    Args:
        cfg: reads `estimate.grid_*`, the array and the field of view.
        dtype: real dtype.
        device: device.

    Returns:
        Parameters `G x 3` real (azimuth, elevation, 1/range) and steering vectors of norm one, `G x N` complex.
    """
    e = cfg.estimate
    return _grid(cfg.array, cfg.scene, (e.grid_range, e.grid_elevation, e.grid_azimuth), dtype, device)
