"""The leading eigenvectors of a batch without a full eigendecomposition, wherever that can be certified."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Complex, Int
from torch import Tensor

from ris_verified.estimate.spectrum import signal_subspace
from ris_verified.shapes import shaped

# Columns beside the wanted ones, powers of R between two tests, and tests before the full decomposition.
EXTRA, POWERS, TESTS = 3, 3, 3


@shaped
def leading_subspace(R: Complex[Tensor, "B N N"], K: Int[Tensor, " B"], most: int) -> Complex[Tensor, "B N most"]:
    """Return the eigenvectors of the K largest eigenvalues as `signal_subspace` does, by block power iteration.

    Ritz pairs (θ_k, u_k) with residuals ρ = ‖R u_k − θ_k u_k‖ at rounding are eigenpairs, and no other eigenvalue
    exceeds δ = √(‖R‖²_F − Σ θ_k²). They are taken where ρ ≤ N·eps·(θ_K − δ); other matrices are decomposed in full.

    Args:
        R: `B x N x N` complex, Hermitian, positive semidefinite.
        K: `B` int64.
        most: number of columns, at least K.

    Returns:
        `B x N x most` complex, zero columns beyond K.

    Raises:
        ShapeError: the axes do not agree.

    Source: Parlett, "The symmetric eigenvalue problem" (1980), ch. 11 (residual and gap) and 14 (subspace iteration).
    """
    N, wanted = R.shape[-1], torch.arange(most, device=R.device) < K[:, None]
    if most + EXTRA >= N:
        return signal_subspace(R, K, most)
    Q = _start(N, most + EXTRA, R.dtype, R.device).expand(len(R), -1, -1)
    square = torch.linalg.matrix_norm(R).square()
    Q = _powered(R, Q)
    U, certified = _ritz(R, Q, wanted, square)
    for _ in range(TESTS - 1):
        if bool(certified.all()):
            return U
        Q = _powered(R, Q)
        U, certified = _ritz(R, Q, wanted, square)
    if not bool(certified.all()):
        U[~certified] = signal_subspace(R[~certified], K[~certified], most)
    return U


def _powered(R: Tensor, Q: Tensor) -> Tensor:
    for _ in range(POWERS):
        Q = torch.linalg.qr(R @ Q)[0]
    return Q


def _ritz(R: Tensor, Q: Tensor, wanted: Tensor, square: Tensor) -> tuple[Tensor, Tensor]:
    moved, most = R @ Q, wanted.shape[-1]
    values, turn = torch.linalg.eigh(Q.mH @ moved)
    theta, turn = values.flip(-1)[:, :most], turn.flip(-1)[..., :most] * wanted[:, None]
    U = Q @ turn
    residual = torch.linalg.vector_norm(moved @ turn - U * theta[:, None], dim=-2).amax(-1)
    rest = (square - (theta.square() * wanted).sum(-1)).clamp_min(0).sqrt()
    least = theta.masked_fill(~wanted, torch.inf).amin(-1)
    eps = torch.finfo(theta.dtype).eps
    # The two squares cancel to their rounding, so a remainder below it is not known.
    rest = rest.clamp_min((R.shape[-1] * eps * square).sqrt())
    certified: Tensor = residual <= R.shape[-1] * eps * (least - rest)
    return U, certified


@functools.lru_cache(maxsize=8)
def _start(N: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        block = torch.randn(N, columns, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
        basis: Tensor = torch.linalg.qr(block)[0].to(device, dtype)
        return basis
