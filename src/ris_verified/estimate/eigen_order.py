"""The number of sources from the eigenvalues of a covariance, for comparison."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from ris_verified.errors import InputError
from ris_verified.shapes import shaped

Criterion = Literal["aic", "mdl"]


@shaped
def eigenvalue_criterion(
    eigenvalues: Float[Tensor, "B M"], snapshots: int, criterion: Criterion
) -> Float[Tensor, "B M"]:
    """Return AIC or MDL of 0 … M − 1 sources; the smallest wins.

    With g and m the geometric and arithmetic mean of the M − k smallest eigenvalues,
    AIC(k) = 2 L (M − k) ln(m/g) + 2k(2M − k), MDL(k) = L (M − k) ln(m/g) + ½ k(2M − k) ln L.

    Args:
        eigenvalues: `B x M` real, positive, descending.
        snapshots: L.
        criterion: `aic` or `mdl`.

    Returns:
        `B x M` real.

    Raises:
        ShapeError: wrong shape or dtype.

    Source: Wax and Kailath, "Detection of signals by information theoretic criteria", IEEE Trans.
    ASSP 33 (1985).
    """
    M = eigenvalues.shape[-1]
    k = torch.arange(M, device=eigenvalues.device)
    left = (M - k).to(eigenvalues.dtype)

    def tail_mean(values: Tensor) -> Tensor:
        mean: Tensor = values.flip(-1).cumsum(-1).flip(-1) / left
        return mean

    misfit = snapshots * left * (tail_mean(eigenvalues).log() - tail_mean(eigenvalues.log()))
    free = (k * (2 * M - k)).to(eigenvalues.dtype)
    if criterion == "aic":
        return 2 * misfit + 2 * free
    return misfit + free * math.log(snapshots) / 2


@shaped
def eigenvalue_order(R: Complex[Tensor, "B M M"], snapshots: int, criterion: Criterion) -> Int[Tensor, " B"]:
    """Return the number of sources that AIC or MDL chooses, from 0 to M − 1.

    For a covariance of the antennas, where the noise is white. The library's own order comes from
    residuals (`estimate.order`), because codes that change make the antennas' covariance a mixture.

    Args:
        R: `B x M x M` complex, sample covariance of L snapshots.
        snapshots: L, at least M.
        criterion: `aic` or `mdl`.

    Returns:
        `B` int64.

    Raises:
        ShapeError: wrong shape or dtype.
        InputError: fewer snapshots than antennas, or a covariance that is not positive definite.

    Source: Wax and Kailath, IEEE Trans. ASSP 33 (1985).
    """
    M = R.shape[-1]
    if snapshots < M:
        raise InputError(
            f"{snapshots} snapshots of {M} antennas",
            where="snapshots",
            expected=f"at least {M}",
            remedy="the criteria take logarithms of eigenvalues that are zero below that",
        )
    eigenvalues = torch.linalg.eigvalsh(R.to(torch.complex128)).flip(-1)
    singular = eigenvalues[:, -1] <= M * torch.finfo(R.dtype).eps * eigenvalues[:, 0]
    if bool(singular.any()):
        raise InputError(
            "not positive definite",
            where=f"R[{int(singular.nonzero()[0])}]",
            expected=f"a sample covariance of at least {M} independent snapshots",
        )
    return eigenvalue_criterion(eigenvalues, snapshots, criterion).argmin(-1)
