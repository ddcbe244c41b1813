"""The 2.5-D MUSIC spectrum of a covariance and its peaks."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Int
from torch import Tensor

from ris_verified.config import Config
from ris_verified.estimate.grid import spectrum_grid
from ris_verified.estimate.parameters import to_peaks
from ris_verified.estimate.result import Peaks
from ris_verified.shapes import shaped

LOBE = 0.5


def signal_subspace(R: Tensor, K: Tensor, most: int) -> Tensor:
    """Return the eigenvectors of the K largest eigenvalues, `B x N x most`, zero columns beyond K.

    Args:
        R: `B x N x N` complex, Hermitian.
        K: `B` int64.
        most: number of columns.
    """
    vectors = torch.linalg.eigh(R)[1].flip(-1)[..., :most]
    basis: Tensor = vectors * (torch.arange(most, device=R.device) < K[:, None])[:, None]
    return basis


def subspace_power(U: Tensor, atoms: Tensor) -> Tensor:
    """Return ‖Uᴴ a‖² of each grid point, `B x G` real.

    Args:
        U: `B x N x K` complex.
        atoms: `G x N` complex.
    """
    power: Tensor = (atoms.conj() @ U).abs().square().sum(-1)
    return power


def pseudo_spectrum(inside: Tensor, floor: float) -> Tensor:
    """Return 1/(1 − inside), the complement kept above `floor`.

    Args:
        inside: `...` real, share of a steering vector inside the signal subspace.
        floor: the rounding of that share.
    """
    return 1 / (1 - inside).clamp_min(floor)


@shaped
def music(R: Complex[Tensor, "B N N"], K: Int[Tensor, " B"], cfg: Config) -> Tensor:
    """Return the MUSIC spectrum 1/(1 − ‖U_Kᴴ a‖²/‖a‖²) on the grid of `estimate.grid_*`.

    Args:
        R: `B x N x N` complex, Hermitian.
        K: `B` int64, number of sources.
        cfg: reads `array`, `scene` and `estimate`.

    Returns:
        `B x R x V x H` real: range planes, elevations, azimuths.

    Raises:
        ShapeError: the axes do not agree.

    Source: Schmidt, "Multiple emitter location and signal parameter estimation", IEEE Trans.
    Antennas Propag. 34 (1986).
    """
    e = cfg.estimate
    _, atoms = spectrum_grid(cfg, R.real.dtype, R.device)
    inside = subspace_power(signal_subspace(R, K, cfg.scene.sources_max), atoms)
    value = pseudo_spectrum(inside, torch.finfo(inside.dtype).eps)
    return value.reshape(len(R), e.grid_range, e.grid_elevation, e.grid_azimuth)


def strongest(value: Tensor, K: Tensor, parameters: Tensor, atoms: Tensor, most: int) -> Peaks:
    """Return the K strongest grid points of any spectrum in distinct main lobes.

    After each choice every point whose steering vector correlates with the chosen one by more than
    1/2 is left out, so the slopes and the range ridge of one source are not taken for another.

    Args:
        value: `B x G` real, not negative.
        K: `B` int64, how many to find.
        parameters: `G x 3` real, azimuth (rad), elevation (rad), 1/range (1/m).
        atoms: `G x N` complex, steering vectors of norm one.
        most: columns of the result.

    Returns:
        `Peaks`, NaN beyond K.
    """
    found = []
    for k in range(most):
        index = value.argmax(-1)
        correlation = (atoms[index].conj() @ atoms.T).abs()
        value = value.masked_fill(correlation > LOBE, -1.0)
        found.append(torch.where((k < K)[:, None], parameters[index], torch.nan))
    return to_peaks(torch.stack(found, 1))


@shaped
def spectrum(R: Complex[Tensor, "B N N"], K: Int[Tensor, " B"], cfg: Config) -> Peaks:
    """Return the K strongest grid points of the MUSIC spectrum in distinct main lobes.

    Args:
        R: `B x N x N` complex, Hermitian.
        K: `B` int64, how many to find.
        cfg: reads `array`, `scene` and `estimate`.

    Returns:
        `Peaks`, NaN beyond K.

    Raises:
        ShapeError: the axes do not agree.
    """
    most = cfg.scene.sources_max
    parameters, atoms = spectrum_grid(cfg, R.real.dtype, R.device)
    # The share inside the subspace rises with the pseudo-spectrum and needs no division.
    return strongest(subspace_power(signal_subspace(R, K, most), atoms), K, parameters, atoms, most)
