"""The 2.5-D MUSIC spectrum of a covariance and its peaks."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Int
from torch import Tensor

from ris_verified.array.folded import FoldedGrid
from ris_verified.array.steering import steering
from ris_verified.config import Config
from ris_verified.covariance.low_rank import LowRank
from ris_verified.estimate.grid import spectrum_grid
from ris_verified.estimate.parameters import to_peaks
from ris_verified.estimate.result import Peaks
from ris_verified.estimate.subspace import pseudo_spectrum, signal_subspace
from ris_verified.shapes import require_axes, shaped

LOBE = 0.5


@shaped
def music(R: Complex[Tensor, "B N N"] | LowRank, K: Int[Tensor, " B"], cfg: Config) -> Tensor:
    """Return the MUSIC spectrum 1/(1 − ‖U_Kᴴ a‖²/‖a‖²) on the grid of `estimate.grid_*`.

    Args:
        R: `B x N x N` complex, Hermitian, or a `LowRank` with a factor of at least K columns.
        K: `B` int64, number of sources.
        cfg: reads `array`, `scene` and `estimate`.

    Returns:
        `B x R x V x H` real: range planes, elevations, azimuths.

    Raises:
        ShapeError: the axes do not agree.

    Source: Schmidt, "Multiple emitter location and signal parameter estimation", IEEE Trans.
    Antennas Propag. 34 (1986).
    """
    grid, inside = _inside(R, K, cfg)
    value: Tensor = pseudo_spectrum(inside, torch.finfo(inside.dtype).eps).unflatten(1, grid.shape)
    return value


def strongest(value: Tensor, K: Tensor, grid: FoldedGrid, most: int) -> Peaks:
    """Return the K strongest grid points of any spectrum in distinct main lobes.

    After each choice every point whose steering vector correlates with the chosen one by more than
    1/2 is left out, so the slopes and the range ridge of one source are not taken for another.

    Args:
        value: `B x G` real, not negative.
        K: `B` int64, how many to find.
        grid: its G places.
        most: columns of the result.

    Returns:
        `Peaks`, NaN beyond K.
    """
    found = value.new_full((len(value), most, 3), torch.nan)
    scenes = torch.nonzero(K > 0)[:, 0]
    value = value[scenes]
    for k in range(most):
        place = grid.places[value.argmax(-1)]
        found[scenes, k] = place.to(found.dtype)
        more = torch.nonzero(K[scenes] > k + 1)[:, 0]
        if not len(more):
            break
        scenes, value, place = scenes[more], value[more], place[more]
        a = steering(grid.array, place[:, 0], place[:, 1], 1 / place[:, 2])
        share = grid.inside((a / torch.linalg.vector_norm(a, dim=-1, keepdim=True))[..., None])
        value = value.masked_fill(share > LOBE**2, -1.0)
    return to_peaks(found)


@shaped
def spectrum(R: Complex[Tensor, "B N N"] | LowRank, K: Int[Tensor, " B"], cfg: Config) -> Peaks:
    """Return the K strongest grid points of the MUSIC spectrum in distinct main lobes.

    Args:
        R: `B x N x N` complex, Hermitian, or a `LowRank` with a factor of at least K columns.
        K: `B` int64, how many to find.
        cfg: reads `array`, `scene` and `estimate`.

    Returns:
        `Peaks`, NaN beyond K.

    Raises:
        ShapeError: the axes do not agree.
    """
    grid, inside = _inside(R, K, cfg)
    # The share inside the subspace rises with the pseudo-spectrum and needs no division.
    return strongest(inside, K, grid, cfg.scene.sources_max)


def _inside(R: Tensor | LowRank, K: Tensor, cfg: Config) -> tuple[FoldedGrid, Tensor]:
    sizes = {"N": cfg.array.elements}
    if isinstance(R, LowRank):
        require_axes("spectrum", {"factor": "B N P", "K": "B"}, {"factor": R.factor, "K": K}, sizes)
    else:
        require_axes("spectrum", {"R": "B N N"}, {"R": R}, sizes)
    U = signal_subspace(R, K, int(K.max()))
    grid = spectrum_grid(cfg, U.real.dtype, U.device)
    return grid, grid.inside(U)
