"""Powers of sources at given places, each its own: what explains nothing fades away."""

from __future__ import annotations

import torch
from torch import Tensor

from ris_verified.estimate.measurement import Measurement, power

# Of the strongest, the least power that is still told from none.
LEAST = 1e-6


def source_powers(
    columns: Tensor, data: Measurement, powers: Tensor, noise: Tensor, rounds: int
) -> tuple[Tensor, Tensor]:
    """Raise the likelihood of y_l ~ CN(0, σ² I + B_l diag(p) B_lᴴ) over p and σ² by MacKay's fixed point.

    p_k ← Σ_l |μ_lk|²/Σ_l γ_lk, σ² ← Σ_l ‖y_l − B_l μ_l‖²/(LM − Σ_lk γ_lk), with μ_l the mean of the symbols given
    y_l, V_l their covariance and γ_lk = 1 − V_l,kk/p_k the part of each that the measurements determine.

    Args:
        columns: `B x L x M x K` complex, B_l.
        data: the measurements.
        powers: `B x K` real, where p begins.
        noise: `B` real, where σ² begins.
        rounds: of the fixed point.

    Returns:
        p, `B x K` real, and σ², `B` real.

    Source: MacKay, "Bayesian interpolation", Neural Computation 4 (1992), eq. 4.8; Wipf and Rao, "An empirical
    Bayesian strategy for solving the simultaneous sparse approximation problem", IEEE Trans. SP 55 (2007), eq. 19.
    """
    adjoint = columns.mH
    gram, seen = adjoint @ columns, adjoint @ data.y[..., None]
    floor = torch.finfo(noise.dtype).tiny ** 0.5
    p, noise = powers.clamp_min(floor), noise.clamp_min(floor)
    for _ in range(rounds):
        root = p.sqrt()[:, None]
        # V_l = diag(√p) (I + diag(√p) B_lᴴ B_l diag(√p)/σ²)⁻¹ diag(√p) has no large entries to invert.
        inner = gram * (root[..., None] * root[..., None, :] / noise[:, None, None, None])
        inner.diagonal(dim1=-2, dim2=-1).add_(1)
        spread = root[..., None] * torch.linalg.inv_ex(inner)[0] * root[..., None, :]
        symbols = (spread @ seen)[..., 0] / noise[:, None, None]
        # γ = (V_l B_lᴴ B_l)_kk/σ²: its difference from one would be lost to rounding where there is hardly any power.
        determined = (spread * gram.mT).sum(-1).real / noise[:, None, None]
        determined = determined.clamp_min(torch.finfo(p.dtype).tiny)
        left = power(data.y - (columns @ symbols[..., None])[..., 0]).sum((1, 2))
        noise = (left / (data.rows - determined.sum((1, 2)))).clamp_min(floor)
        p = power(symbols).sum(1) / determined.sum(1)
        p = p.clamp_min(floor + LEAST * p.amax(1, keepdim=True))
    return p, noise
