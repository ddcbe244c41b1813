"""A covariance kept as a low-rank factor and a multiple of the identity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex
from torch import Tensor

from ris_verified.config import Config
from ris_verified.covariance.trace import of_trace
from ris_verified.errors import ShapeError
from ris_verified.shapes import describe, shaped


@dataclass(frozen=True)
class LowRank:
    """R = F Fᴴ + c I, never formed.

    Args:
        factor: F, `B x N x P` complex with P < N.
        floor: c, `B` real, not negative.

    Raises:
        ShapeError: the two do not fit each other, or P is not below N.
    """

    factor: Tensor
    floor: Tensor

    def __post_init__(self) -> None:
        F, c = self.factor, self.floor
        if F.ndim != 3 or not F.is_complex() or F.shape[2] >= F.shape[1]:
            raise ShapeError(describe(F), where="factor", expected="complex [B, N, P] with P < N")
        if c.shape != F.shape[:1] or not c.is_floating_point():
            raise ShapeError(describe(c), where="floor", expected=f"real [{F.shape[0]}]")

    def dense(self) -> Tensor:
        """Form the covariance, `B x N x N` complex."""
        eye = torch.eye(self.factor.shape[1], dtype=self.factor.dtype, device=self.factor.device)
        return self.factor @ self.factor.mH + self.floor[:, None, None] * eye


@shaped
def blend_low_rank(factor: Complex[Tensor, "B N P"], snapshots: Complex[Tensor, "B S N"], cfg: Config) -> LowRank:
    """Return R_blend as a low-rank factor and a floor; gradients pass through the prediction only.

    F = [√((1−β) N/‖A‖²) A, √(β N/‖X‖²) Xᵀ]/√(1+ε), c = ε/(1+ε), ε = C_EPS. This is `blend` of the
    trace-normalised A Aᴴ and XᵀX*: each has trace N before and after, so one scale serves.

    Args:
        factor: `B x N x P` complex, A with R_pred ∝ A Aᴴ (`product`: A_angle ⊙ A_range; `sum`:
            A_angle beside √λ A_range).
        snapshots: `B x S x N` complex, X as `centred(least_squares_snapshots(…))` gives it; detached.
        cfg: reads `covariance.beta` and `covariance.loading`.

    Returns:
        A `LowRank` of rank at most P + S.

    Raises:
        ShapeError: the axes do not agree, or P + S is not below N.

    Source: checklist RV0803.
    """
    beta, loading = cfg.covariance.beta, cfg.covariance.loading
    X = snapshots.detach().mT
    parts = [math.sqrt(share / (1 + loading)) * of_trace(F) for F, share in ((factor, 1 - beta), (X, beta))]
    floor = torch.full((len(factor),), loading / (1 + loading), dtype=factor.real.dtype, device=factor.device)
    return LowRank(torch.cat(parts, -1), floor)
