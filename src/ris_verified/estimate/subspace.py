"""The signal subspace of a covariance, dense or low rank, and what of a vector lies inside it."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ris_verified.covariance.low_rank import LowRank
from ris_verified.errors import InputError

# Columns of the iteration beyond the wanted ones, as many as a sample covariance of sixteen snapshots has, and
# rounds of two powers before the full decomposition.
MORE, ROUNDS = 20, 3


def signal_subspace(R: Tensor | LowRank, K: Tensor, most: int) -> Tensor:
    """Return the eigenvectors of the K largest eigenvalues, `B x N x most`, zero columns beyond K.

    Of F Fᴴ + c I they are F V Λ^(−1/2) with FᴴF = V Λ Vᴴ, without a matrix of N columns.

    Args:
        R: `B x N x N` complex, Hermitian, or a `LowRank`; beyond its rank columns are zero.
        K: `B` int64.
        most: number of columns.

    Raises:
        InputError: more columns than R or its factor has.
    """
    width = R.factor.shape[-1] if isinstance(R, LowRank) else R.shape[-1]
    if most > width:
        raise InputError(f"K is {most}", where="K", expected=f"at most {width}, the rank of the signal part of R")
    if not isinstance(R, LowRank):
        return _leading(R, K, most)
    # FᴴF squares the condition of F.
    F = R.factor.to(torch.complex128)
    seen = F @ _leading(F.mH @ F, K, most)
    value = torch.linalg.vector_norm(seen, dim=-2, keepdim=True)
    # A direction below the rounding of the strongest is none.
    least = (width * torch.finfo(value.dtype).eps) ** 0.5 * value[..., :1]
    return torch.where(value > least, seen / value, torch.zeros_like(value)).to(R.factor.dtype)


def _leading(R: Tensor, K: Tensor, most: int) -> Tensor:
    # A full decomposition is slower, but for small matrices, and takes what block power iteration leaves in doubt.
    N, wanted = R.shape[-1], (torch.arange(most, device=R.device) < K[:, None])[:, None]
    if most + MORE > N // 4:
        return _decomposed(R, most) * wanted
    U, sure = _iterated(R, K, most)
    U = U * wanted
    if not bool(sure.all()):
        U[~sure] = _decomposed(R[~sure], most) * wanted[~sure]
    return U


def _decomposed(R: Tensor, most: int) -> Tensor:
    vectors: Tensor = torch.linalg.eigh(R)[1].flip(-1)[..., :most]
    return vectors


def _iterated(R: Tensor, K: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return Ritz vectors of block power iteration and whether the first K are the leading eigenvectors.

    They are where two things hold, with τ = N·eps·‖R‖: ‖R u_k − θ_k u_k‖ ≤ τ, so they span an invariant subspace of
    a matrix within τ of R, as those of any stable decomposition; and sI − R + Σ_{k≤K} θ_k u_k u_kᴴ has a Cholesky
    factor for s = (θ_K + θ_{K+1})/2, so by Sylvester's law of inertia no other eigenvalue exceeds s < θ_K − τ.

    Source: Parlett, "The symmetric eigenvalue problem" (1980), ch. 3 (slicing), 4 (residuals), 14 (subspace iteration).
    """
    first = torch.arange(most, device=R.device) < K[:, None]
    Q = _powered(R, _start(R.shape[-1], most + MORE, R.dtype, R.device).expand(len(R), -1, -1))
    U, theta, exact = _ritz(R, Q, most)
    for _ in range(ROUNDS - 1):
        if bool((exact | ~first).all()):
            break
        Q = _powered(R, Q)
        U, theta, exact = _ritz(R, Q, most)
    around = theta.gather(1, torch.stack([(K - 1).clamp_min(0), K], 1))
    shift = around.mean(1)
    rest = torch.baddbmm(R, U * (theta[:, :most] * first)[:, None], U.mH, beta=-1)
    rest.diagonal(dim1=1, dim2=2).add_(shift[:, None])
    below = torch.linalg.cholesky_ex(rest)[1] == 0
    return U, (exact | ~first).all(-1) & below & (around[:, 0] - shift > _rounding(R, theta))


def _powered(R: Tensor, Q: Tensor) -> Tensor:
    powered: Tensor = torch.linalg.qr(R @ torch.linalg.qr(R @ Q)[0])[0]
    return powered


def _ritz(R: Tensor, Q: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    # Ritz vectors, all Ritz values, and which vectors are exact to rounding.
    moved = R @ Q
    values, turn = torch.linalg.eigh(Q.mH @ moved)
    theta, turn = values.flip(-1), turn.flip(-1)[..., :most]
    U = Q @ turn
    off = torch.linalg.vector_norm(moved @ turn - U * theta[:, None, :most], dim=-2)
    return U, theta, off <= _rounding(R, theta)[:, None]


def _rounding(R: Tensor, theta: Tensor) -> Tensor:
    return R.shape[-1] * torch.finfo(theta.dtype).eps * theta[:, 0]


@functools.lru_cache(maxsize=8)
def _start(N: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        start = torch.randn(N, columns, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
        return start.to(device, dtype)


def subspace_power(U: Tensor, atoms: Tensor) -> Tensor:
    """Return ‖Uᴴ a‖² of each vector, `B x G` real.

    Args:
        U: `B x N x K` complex.
        atoms: `G x N` complex.
    """
    # One product for all scenes: a product a scene would have K columns only.
    hits = torch.view_as_real(U.mH.flatten(0, 1) @ atoms.T).square_().sum(-1)
    power: Tensor = hits.unflatten(0, (len(U), -1)).sum(1)
    return power


def pseudo_spectrum(inside: Tensor, floor: float) -> Tensor:
    """Return 1/(1 − inside), the complement kept above `floor`.

    Args:
        inside: `...` real, share of a steering vector inside the signal subspace.
        floor: the rounding of that share.
    """
    return 1 / (1 - inside).clamp_min(floor)
