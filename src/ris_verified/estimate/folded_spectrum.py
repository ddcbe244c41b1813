"""The MUSIC spectrum of a batch by one product with a quarter of the grid."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ris_verified.array.steering import steering
from ris_verified.config import Config
from ris_verified.covariance.low_rank import LowRank
from ris_verified.errors import ConfigError
from ris_verified.estimate.folded import FoldedGrid, folded_grid, unfolded
from ris_verified.estimate.spectrum import pseudo_spectrum, signal_subspace
from ris_verified.shapes import shaped

# Scenes at a time: of each all columns' products with the grid are kept at once.
SCENES = 32


@shaped
def folded_music(U: Complex[Tensor, "B N K"], cfg: Config) -> Float[Tensor, "B R V H"]:
    """Return the MUSIC spectrum 1/(1 − ‖Uᴴa‖²/‖a‖²) on the grid of `estimate.grid_*`, as `music` does.

    Even and odd parts of U meet those of a steering vector, so one product serves four mirrored places.

    Args:
        U: `B x N x K` complex, orthonormal or zero columns, from `signal_subspace`.
        cfg: reads `array`, `scene` and `estimate`.

    Returns:
        `B x R x V x H` real: range planes, elevations, azimuths.

    Raises:
        ShapeError: U is no batch of complex matrices.
        ConfigError: the grid has an odd number of angles.

    Source: Schmidt, "Multiple emitter location and signal parameter estimation", IEEE Trans.
    Antennas Propag. 34 (1986).
    """
    grid, square = _grid(cfg, U.real.dtype, U.device)
    inside = torch.cat([_power(part, grid) for part in U.split(SCENES)]) / square
    return pseudo_spectrum(inside, torch.finfo(inside.dtype).eps)


def low_rank_subspace(R: LowRank, K: Tensor, most: int) -> Tensor:
    """Return the eigenvectors of the K largest eigenvalues, as `signal_subspace` does, from the factor alone.

    FᴴF = V Λ Vᴴ gives the eigenvectors F V Λ^(−1/2) of F Fᴴ without an N x N matrix.

    Args:
        R: covariance with a factor of P columns.
        K: `B` int64.
        most: number of columns, at most P.

    Returns:
        `B x N x most` complex of the factor's precision, zero columns beyond K and beyond the rank.
    """
    F = R.factor
    seen = F @ signal_subspace(F.mH @ F, K, most)
    value = torch.linalg.vector_norm(seen, dim=-2, keepdim=True)
    # A direction below the rounding of the strongest is none.
    least = (F.shape[-1] * torch.finfo(value.dtype).eps) ** 0.5 * value[..., :1]
    return torch.where(value > least, seen / value, torch.zeros_like(seen))


def _power(U: Tensor, grid: FoldedGrid) -> Tensor:
    # Uᴴa over the columns of all scenes at once; real and imaginary parts count alike.
    hits = unfolded(grid.products(U.mH.flatten(0, 1))).square_()
    return grid.volume(hits.unflatten(1, (len(U), -1)).sum((2, 3)).transpose(0, 1))


@functools.lru_cache(maxsize=4)
def _grid(cfg: Config, dtype: torch.dtype, device: torch.device) -> tuple[FoldedGrid, Tensor]:
    e = cfg.estimate
    if e.grid_azimuth % 2 or e.grid_elevation % 2:
        raise ConfigError(
            f"{e.grid_azimuth} azimuths, {e.grid_elevation} elevations",
            where="estimate.grid_azimuth, estimate.grid_elevation",
            expected="even numbers, or the mirror planes pass through grid points",
            remedy="use `music`",
        )
    names = ("azimuth", "elevation", "range")
    same = cfg.replaced({f"estimate.search_{name}": vars(e)[f"grid_{name}"] for name in names})
    grid = folded_grid(same, dtype, device)
    azimuth, elevation, inverse = grid.places.unbind(-1)
    with torch.inference_mode(False), torch.no_grad():
        square = steering(cfg.array, azimuth, elevation, 1 / inverse).abs().square().sum(-1)
    return grid, square.to(dtype).view(grid.shape)
