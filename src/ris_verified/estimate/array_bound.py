"""Cramér–Rao bounds of a directly sampled array y = A s + n, without a surface in between.

`near_response` and `planar_response` give A and its derivatives for a panel or a line of elements;
keep the coordinates that the array can see.
"""

from __future__ import annotations

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ris_verified.estimate.information import position_bound
from ris_verified.estimate.stochastic import gaussian_information
from ris_verified.shapes import shaped


@shaped
def deterministic_array_bound(
    A: Complex[Tensor, "B M K"],
    slopes: Complex[Tensor, "B M K p"],
    P: Complex[Tensor, "B K K"],
    noise_variance: Float[Tensor, " B"],
    snapshots: int,
) -> Float[Tensor, "B Q Q"]:
    """Return the bound with the symbols as unknown constants.

    σ²/(2L) {Re[(Dᴴ P⊥_A D) ⊙ (P ⊗ 1 1ᵀ)ᵀ]}⁻¹, 1 of length p, P = Σ_l s_l s_lᴴ/L.

    Args:
        A: `B x M x K` complex, responses.
        slopes: `B x M x K x p` complex, derivatives in p coordinates of each source.
        P: `B x K x K` complex, Hermitian, sample covariance of the symbols.
        noise_variance: σ², `B` real.
        snapshots: L.

    Returns:
        `B x Kp x Kp` real, source by source.

    Raises:
        ShapeError: the axes do not agree.
        InputError: the coordinates are not determined.

    Source: Stoica and Nehorai, "MUSIC, maximum likelihood, and Cramér–Rao bound", IEEE Trans.
    ASSP 37 (1989).
    """
    return _projected(A, slopes, P.to(torch.complex128), noise_variance, snapshots)


@shaped
def stochastic_array_bound(
    A: Complex[Tensor, "B M K"],
    slopes: Complex[Tensor, "B M K p"],
    P: Complex[Tensor, "B K K"],
    noise_variance: Float[Tensor, " B"],
    snapshots: int,
) -> Float[Tensor, "B Q Q"]:
    """Return the bound with Gaussian symbols of unknown covariance P and unknown σ².

    σ²/(2L) {Re[(Dᴴ P⊥_A D) ⊙ (P AᴴR⁻¹A P ⊗ 1 1ᵀ)ᵀ]}⁻¹, R = A P Aᴴ + σ²I.

    Args:
        A: `B x M x K` complex, responses.
        slopes: `B x M x K x p` complex, derivatives in p coordinates of each source.
        P: `B x K x K` complex, Hermitian, covariance of the symbols.
        noise_variance: σ², `B` real.
        snapshots: L.

    Returns:
        `B x Kp x Kp` real, source by source; nowhere below `deterministic_array_bound`.

    Raises:
        ShapeError: the axes do not agree.
        InputError: the coordinates are not determined.

    Source: Stoica and Nehorai, "Performance study of conditional and unconditional
    direction-of-arrival estimation", IEEE Trans. ASSP 38 (1990).
    """
    B, wide = A.to(torch.complex128), P.to(torch.complex128)
    eye = torch.eye(B.shape[1], dtype=B.dtype, device=B.device)
    R = B @ wide @ B.mH + noise_variance[:, None, None] * eye
    return _projected(A, slopes, wide @ B.mH @ torch.linalg.solve(R, B) @ wide, noise_variance, snapshots)


@shaped
def uncorrelated_array_bound(
    A: Complex[Tensor, "B M K"],
    slopes: Complex[Tensor, "B M K p"],
    powers: Float[Tensor, "B K"],
    noise_variance: Float[Tensor, " B"],
    snapshots: int,
) -> Float[Tensor, "B Q Q"]:
    """Return the bound with Gaussian symbols known to be uncorrelated, of unknown powers and σ².

    The leading block of (L J)⁻¹, J as in `gaussian_information` of one snapshot.

    Args:
        A: `B x M x K` complex, responses.
        slopes: `B x M x K x p` complex, derivatives in p coordinates of each source.
        powers: `B x K` real, positive.
        noise_variance: σ², `B` real.
        snapshots: L.

    Returns:
        `B x Kp x Kp` real, source by source; nowhere above `stochastic_array_bound`.

    Raises:
        ShapeError: the axes do not agree.
        InputError: the coordinates are not determined.

    Source: Jansson, Göransson and Ottersten, "A subspace method for direction of arrival estimation
    of uncorrelated emitter signals", IEEE Trans. Signal Process. 47 (1999).
    """
    D = slopes.to(torch.complex128).flatten(2)
    J = gaussian_information(A.to(torch.complex128)[:, None], D[:, None], powers.double(), noise_variance.double())
    bound = position_bound(snapshots * J, torch.zeros(J.shape[:2], dtype=torch.bool, device=J.device))
    return bound[:, : D.shape[-1], : D.shape[-1]].to(A.real.dtype)


def _projected(A: Tensor, slopes: Tensor, weight: Tensor, noise_variance: Tensor, snapshots: int) -> Tensor:
    dtype, p = A.real.dtype, slopes.shape[-1]
    A, D = A.to(torch.complex128), slopes.to(torch.complex128).flatten(2)
    # The residual of a projection on an orthonormal basis does not square the condition of A.
    basis = torch.linalg.qr(A)[0]
    residual = D - basis @ (basis.mH @ D)
    spread = weight.mT.repeat_interleave(p, -1).repeat_interleave(p, -2)
    J = 2 * snapshots * (residual.mH @ residual * spread).real / noise_variance.double()[:, None, None]
    return position_bound(J, torch.zeros(J.shape[:2], dtype=torch.bool, device=J.device)).to(dtype)
