"""The sample covariance from per-snapshot ridge least squares."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ris_verified.config import Config
from ris_verified.contracts import check_covariance, tolerance
from ris_verified.covariance.trace import gram_of_trace
from ris_verified.errors import ShapeError
from ris_verified.shapes import as_complex, describe, require_one_dtype, shaped


def _ridge_solve(Phi: Tensor, y: Tensor, ridge: float) -> Tensor:
    # Push-through, (ΦᴴΦ + αI)⁻¹Φᴴ = Φᴴ(ΦΦᴴ + αI)⁻¹: the system is rows × rows, not N × N.
    rows, N = Phi.shape[-2:]
    gram = Phi @ Phi.mH
    alpha = _loading(gram, N, ridge)
    eye = torch.eye(rows, dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(gram + alpha[..., None, None] * eye)
    weights = torch.cholesky_solve(y[..., None], factor)
    return (Phi.mH @ weights)[..., 0]


def _loading(gram: Tensor, N: int, ridge: float) -> Tensor:
    power = torch.diagonal(gram, dim1=-2, dim2=-1).real.sum(-1)
    # Below rounding of the Gram matrix a ridge would leave it singular.
    floor = tolerance(gram.dtype, 1) * power
    return (ridge * (power / N + 1e-12)).maximum(floor)


@shaped
def least_squares_snapshots(
    y: Complex[Tensor, "B L M"],
    H_full: Complex[Tensor, "B M N"],
    C: Complex[Tensor, "B L N"],
    cfg: Config,
) -> Complex[Tensor, "B S N"]:
    """Return the ridge least-squares estimate of the field on the panel.

    x̂_l = Φ_lᴴ(Φ_lΦ_lᴴ + αI)⁻¹ y_l, Φ_l = H diag(c_l), α = ridge · (‖Φ_l‖²_F/N + 1e-12), but not below rounding. With
    `scene.symbols = "constant"` all snapshots share one x, solved jointly from the stacked Φ.

    Args:
        y: `B x L x M` complex, measurements.
        H_full: `B x M x N` complex, channel.
        C: `B x L x N` complex, codes.
        cfg: reads `covariance.ridge` and `scene.symbols`.

    Returns:
        `B x L x N` complex, or `B x 1 x N` for constant symbols.

    Raises:
        ShapeError: the axes do not agree.
    """
    if cfg.scene.symbols == "constant":
        stacked = (H_full[:, None] * C[:, :, None]).flatten(1, 2)
        return _ridge_solve(stacked, y.flatten(1), cfg.covariance.ridge)[:, None]
    _B, _L, _M = y.shape
    # c_l only rotates the columns of H, so for unit-modulus codes all l share one Gram matrix.
    square = torch.view_as_real(C.resolve_conj()).square().sum(-1)
    if bool(((square - 1).abs() < 8 * torch.finfo(square.dtype).eps).all()):
        x = _ridge_solve_shared(H_full, y, cfg.covariance.ridge)
        return x * C.conj()
    Phi = H_full[:, None] * C[:, :, None]
    return _ridge_solve(Phi, y, cfg.covariance.ridge)


def _ridge_solve_shared(H_full: Tensor, y: Tensor, ridge: float) -> Tensor:
    M, N = H_full.shape[-2:]
    gram = H_full @ H_full.mH
    alpha = _loading(gram, N, ridge)
    eye = torch.eye(M, dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(gram + alpha[:, None, None] * eye)
    weights = torch.cholesky_solve(y.mT, factor)
    return weights.mT @ H_full.conj()


def centred(snapshots: Tensor, cfg: Config) -> Tensor:
    """Subtract the mean over snapshots where the configuration asks for it and symbols vary.

    Args:
        snapshots: `B x L x N` complex.
        cfg: reads `covariance.centre` and `scene.symbols`.

    Returns:
        `B x L x N` complex.

    Raises:
        ShapeError: there is one snapshot, of which nothing would be left.
    """
    if not cfg.covariance.centre or cfg.scene.symbols == "constant":
        return snapshots
    if snapshots.shape[1] == 1:
        raise ShapeError(
            describe(snapshots),
            where="snapshots",
            expected="at least 2 on the second axis, since their mean is subtracted",
            remedy="measure more, or set covariance.centre = false",
        )
    return snapshots - snapshots.mean(1, keepdim=True)


@torch.no_grad()
def sample_covariance(y: Tensor, H_full: Tensor, C: Tensor, cfg: Config) -> Complex[Tensor, "B N N"]:
    """Return the covariance of the least-squares snapshots, a constant without gradient.

    R_samp = N · X̂ᵀX̂*/‖X̂‖²_F with X̂ the (mean-centred) rows x̂_l. Rank ≤ L − 1 when centred.

    Args:
        y: `B x L x M` complex, or `B x L x M x 2` real.
        H_full: `B x M x N` complex, or `B x M x N x 2` real.
        C: `B x L x N` complex, or `B x L x N x 2` real.
        cfg: reads `covariance` and `scene.symbols`.

    Returns:
        `B x N x N` complex, Hermitian, positive semidefinite, trace N.

    Raises:
        ShapeError: wrong axes or dtype.
        InvariantError: the result breaks its law.

    Source: checklist RV0705; push-through identity, Henderson and Searle, SIAM Rev. 23 (1981).
    """
    y, H_full = as_complex(y, "y", "B L M"), as_complex(H_full, "H_full", "B M N")
    C = as_complex(C, "C", "B L N")
    require_one_dtype(y=y, H_full=H_full, C=C)
    X = centred(least_squares_snapshots(y, H_full, C, cfg), cfg)
    R = gram_of_trace(X.mT)
    if cfg.contracts:
        check_covariance(R, "R_samp")
    return R


def centring_survival(snapshots: Float[Tensor, "*"] | Tensor) -> Tensor:
    """Return the share of snapshot energy that mean-centring leaves, per batch entry.

    Args:
        snapshots: `B x L x N` complex.

    Returns:
        `B` real in [0, 1]; 0 for symbols that do not vary.
    """
    energy = snapshots.abs().square().sum((1, 2))
    mean = snapshots.mean(1).abs().square().sum(1) * snapshots.shape[1]
    return 1 - mean / energy.clamp_min(torch.finfo(energy.dtype).tiny)
