"""The deterministic Cramér–Rao bounds of the measurement model, near and far."""

from __future__ import annotations

import torch
from torch import Tensor

from ris_verified.config import Config
from ris_verified.errors import ShapeError
from ris_verified.estimate.responses import Response, near_response, planar_response
from ris_verified.shapes import as_complex, describe


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


def measured_response(H_full: Tensor, C: Tensor, response: Response, joint: bool) -> tuple[Tensor, Tensor]:
    """Return Φ_l A and Φ_l ∂A, the derivatives side by side, source by source.

    Args:
        H_full: `B x M x N` complex.
        C: `B x L x N` complex.
        response: K sources, p parameters each.
        joint: True where symbols are constant over snapshots.

    Returns:
        `B x L x M x K` and `B x L x M x Kp` complex, or the same with `1 x LM` for `L x M`.
    """
    seen = measured(H_full, C, response.a.mT, joint)
    return seen, measured(H_full, C, response.slopes.transpose(1, 2).flatten(2), joint)


def _bound(
    response: Response, symbols: Tensor, H_full: Tensor, C: Tensor, noise_variance: Tensor | float, cfg: Config
) -> Tensor:
    symbols = as_complex(symbols, "symbols", "B L K")
    H_full, C = as_complex(H_full, "H_full", "B M N"), as_complex(C, "C", "B L N")
    (B, K), L = response.present.shape, C.shape[1]
    if symbols.shape != (B, L, K):
        raise ShapeError(describe(symbols), where="symbols", expected=f"complex [{B}, {L}, {K}]")
    noise = torch.as_tensor(noise_variance, dtype=H_full.real.dtype, device=H_full.device).expand(B)
    p, joint = response.slopes.shape[-1], cfg.scene.symbols == "constant"
    response = Response(response.a.to(H_full.dtype), response.slopes.to(H_full.dtype), response.present)
    seen, slopes = measured_response(H_full, C.to(H_full.dtype), response, joint)
    s = torch.where(response.present[:, None], symbols.to(H_full.dtype), 0).repeat_interleave(p, -1)
    J = fisher_information(seen, slopes * (s[:, :1, None] if joint else s[:, :, None]), noise)
    gone = ~response.present.repeat_interleave(p, -1)
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
    real = as_complex(H_full, "H_full", "B M N").real.dtype
    response = near_response(cfg.array, azimuth.to(real), elevation.to(real), range.to(real))
    return _bound(response, symbols, H_full, C, noise_variance, cfg)


def planar_cramer_rao_bound(
    azimuth: Tensor,
    elevation: Tensor,
    symbols: Tensor,
    H_full: Tensor,
    C: Tensor,
    noise_variance: Tensor | float,
    cfg: Config,
) -> Tensor:
    """Return the covariance bound of azimuth and elevation of far-field sources, symbols as nuisance.

    `cramer_rao_bound` with plane waves and two parameters a source. Not valid at the ranges of this
    library: sources in the near field have a range, which is another unknown.

    Args:
        azimuth: `B x K` real, radians; NaN marks an absent source.
        elevation: `B x K` real, radians.
        symbols: `B x L x K` complex (or with a last axis of 2).
        H_full: `B x M x N` complex (or with a last axis of 2).
        C: `B x L x N` complex (or with a last axis of 2).
        noise_variance: σ², `B` real or one number.
        cfg: reads `array` and `scene.symbols`.

    Returns:
        `B x 2K x 2K` real; azimuth, elevation source by source; rad². Rows and columns of absent
        sources are NaN.

    Raises:
        ShapeError: the axes do not agree.

    Source: Stoica and Nehorai, IEEE Trans. ASSP 37 (1989), eq. (4.1), with Φ_l per snapshot.
    """
    real = as_complex(H_full, "H_full", "B M N").real.dtype
    response = planar_response(cfg.array, azimuth.to(real), elevation.to(real))
    return _bound(response, symbols, H_full, C, noise_variance, cfg)
