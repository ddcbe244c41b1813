"""The predicted covariance from the two factor heads."""

from __future__ import annotations

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ris_verified.config import Config
from ris_verified.contracts import check_covariance
from ris_verified.covariance.trace import gram_of_trace
from ris_verified.errors import ShapeError
from ris_verified.shapes import describe, from_ri, shaped, to_ri


def unpack_factor(flat: Tensor, name: str, cfg: Config) -> Tensor:
    """Read a flat factor as `B x N x K_MAX` complex; memory order is element, source, (re, im).

    Raises:
        ShapeError: the last axis is not N · K_MAX · 2.
    """
    N, K = cfg.array.elements, cfg.scene.sources_max
    if flat.ndim != 2 or flat.is_complex() or flat.shape[-1] != N * K * 2:
        raise ShapeError(describe(flat), where=name, expected=f"real [B, N·K_MAX·2] = [B, {N * K * 2}]")
    return from_ri(flat.unflatten(-1, (N, K, 2)))


def pack_factor(factor: Tensor) -> Tensor:
    """Undo `unpack_factor`: `B x N x K_MAX` complex to `B x (N·K_MAX·2)` real."""
    return to_ri(factor).flatten(1)


@shaped
def predicted_covariance(
    cov_fact_angle: Float[Tensor, "B F"], cov_fact_range: Float[Tensor, "B F"], cfg: Config
) -> Complex[Tensor, "B N N"]:
    """Return R_pred from the factors; gradients pass.

    `product`: A = A_angle ⊙ A_range, R = A Aᴴ. `sum`: A_a A_aᴴ + λ A_r A_rᴴ, λ = `sum_weight`.
    `real`: A = Re(A_angle ⊙ A_range), which cannot tell a source from its mirror image.

    Args:
        cov_fact_angle: `B x (N·K_MAX·2)` real.
        cov_fact_range: `B x (N·K_MAX·2)` real.
        cfg: reads `covariance.factor_mode` and sizes.

    Returns:
        `B x N x N` complex, Hermitian, positive semidefinite, rank ≤ K_MAX (`sum`: 2 K_MAX), trace N.

    Raises:
        ShapeError: wrong shape or dtype.
        DivergedError: the factors are zero, or overflow.
        InvariantError: the result breaks its law.

    Source: checklist RV0704.
    """
    angle = unpack_factor(cov_fact_angle, "cov_fact_angle", cfg)
    distance = unpack_factor(cov_fact_range, "cov_fact_range", cfg)
    if cfg.covariance.factor_mode == "sum":
        A = torch.cat([angle, math.sqrt(cfg.covariance.sum_weight) * distance], -1)
    else:
        A = angle * distance
        if cfg.covariance.factor_mode == "real":
            A = A.real.to(A.dtype)
    R = gram_of_trace(A)
    if cfg.contracts:
        check_covariance(R, "R_pred")
    return R
