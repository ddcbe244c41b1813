"""The deterministic Cramér–Rao bound of the measurement model."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ris_verified.array.steering import steering_and_derivatives
from ris_verified.config import Config
from ris_verified.errors import ShapeError
from ris_verified.shapes import as_complex, describe, shaped


def measured(H_full: Tensor, C: Tensor, field: Tensor, joint: bool) -> Tensor:
    """Return Φ_l v for vectors v on the panel, the snapshots stacked into rows where they are joint.

    Args:
        H_full: `B x M x N` complex.
        C: `B x L x N` complex.
        field: `B x N x P` complex.
        joint: True where symbols are constant over snapshots.

    Returns:
        `B x L x M x P` complex, or `B x 1 x LM x P`.
    """
    B, L, N = C.shape
    coded: Tensor = (C[..., None] * field[:, None]).transpose(1, 2).reshape(B, N, -1)
    seen: Tensor = (H_full @ coded).unflatten(-1, (L, field.shape[-1])).transpose(1, 2)
    return seen.flatten(1, 2)[:, None] if joint else seen


def fisher_information(B_l: Tensor, D_l: Tensor, noise_variance: Tensor) -> Tensor:
    """Return J = (2/σ²) Re Σ_l D_lᴴ P⊥(B_l) D_l.

    Args:
        B_l: `B x L x M x K` complex, Φ_l A; zero columns are absent sources.
        D_l: `B x L x M x P` complex, derivative of Φ_l A s_l in each parameter.
        noise_variance: `B` real.

    Returns:
        `B x P x P` real.
    """
    gram = B_l.mH @ B_l
    absent = torch.diagonal(gram, dim1=-2, dim2=-1).real == 0
    gram = gram + torch.diag_embed(absent.to(gram.dtype))
    cross = B_l.mH @ D_l
    schur = D_l.mH @ D_l - cross.mH @ torch.linalg.solve(gram, cross)
    J: Tensor = 2 * schur.real.sum(1) / noise_variance[:, None, None]
    return J


@shaped
def _bound(
    angles: Float[Tensor, "3 B K"], symbols: Tensor, H_full: Tensor, C: Tensor, noise: Tensor, cfg: Config
) -> Float[Tensor, "B P P"]:
    present = torch.isfinite(angles).all(0)
    azimuth, elevation, range = torch.where(present, angles, torch.ones_like(angles))
    a, da = steering_and_derivatives(cfg.array, azimuth, elevation, range)
    weight = present.to(a.dtype)[..., None]
    joint = cfg.scene.symbols == "constant"
    seen = measured(H_full, C, (a * weight).mT, joint)
    slopes = measured(H_full, C, (da * weight[..., None]).transpose(1, 2).flatten(2), joint)
    s = torch.where(present[:, None], symbols, torch.zeros_like(symbols)).repeat_interleave(3, -1)
    scale = s[:, :1, None] if joint else s[:, :, None]
    J = fisher_information(seen, slopes * scale, noise)
    gone = ~present.repeat_interleave(3, -1)
    bound: Tensor = torch.linalg.inv(J + torch.diag_embed(gone.to(J.dtype)))
    bound = (bound + bound.mT) / 2
    return bound.masked_fill(gone[:, None] | gone[:, :, None], torch.nan)


def cramer_rao_bound(
    azimuth: Tensor,
    elevation: Tensor,
    range: Tensor,
    symbols: Tensor,
    H_full: Tensor,
    C: Tensor,
    noise_variance: Tensor | float,
    cfg: Config,
) -> Tensor:
    """Return the covariance bound of azimuth, elevation and range with the symbols as nuisance.

    bound = J⁻¹, J = (2/σ²) Re Σ_l D_lᴴ P⊥(B_l) D_l, B_l = Φ_l A, D_l = [Φ_l ∂a_k/∂p · s_lk]. For
    constant symbols the sum runs over one snapshot that stacks all L.

    Args:
        azimuth: `B x K` real, radians; NaN marks an absent source.
        elevation: `B x K` real, radians.
        range: `B x K` real, metres.
        symbols: `B x L x K` complex (or with a last axis of 2).
        H_full: `B x M x N` complex (or with a last axis of 2).
        C: `B x L x N` complex (or with a last axis of 2).
        noise_variance: σ², `B` real or one number.
        cfg: reads `array` and `scene.symbols`.

    Returns:
        `B x 3K x 3K` real; azimuth, elevation, range source by source; rad² and m². Rows and
        columns of absent sources are NaN.

    Raises:
        ShapeError: the axes do not agree.

    Source: Stoica and Nehorai, "MUSIC, maximum likelihood, and Cramér–Rao bound", IEEE Trans.
    ASSP 37 (1989), eq. (4.1), with Φ_l per snapshot.
    """
    if not azimuth.shape == elevation.shape == range.shape or azimuth.ndim != 2:
        raise ShapeError(
            f"{describe(azimuth)}, {describe(elevation)}, {describe(range)}",
            where="azimuth, elevation, range",
            expected="real [B, K] each",
        )
    symbols = as_complex(symbols, "symbols", "B L K")
    H_full, C = as_complex(H_full, "H_full", "B M N"), as_complex(C, "C", "B L N")
    B, L, K = azimuth.shape[0], C.shape[1], azimuth.shape[1]
    if symbols.shape != (B, L, K):
        raise ShapeError(describe(symbols), where="symbols", expected=f"complex [{B}, {L}, {K}]")
    real = H_full.real.dtype
    noise = torch.as_tensor(noise_variance, dtype=real, device=H_full.device).expand(B)
    angles = torch.stack([azimuth, elevation, range]).to(real)
    return _bound(angles, symbols.to(H_full.dtype), H_full, C.to(H_full.dtype), noise, cfg)
