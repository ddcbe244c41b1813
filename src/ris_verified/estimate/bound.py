"""The deterministic Cramér–Rao bounds of the measurement model, near and far."""

from __future__ import annotations

import torch
from torch import Tensor

from ris_verified.config import Config
from ris_verified.contracts import tolerance
from ris_verified.errors import InputError, ShapeError
from ris_verified.estimate.information import ROUNDINGS, position_bound
from ris_verified.estimate.responses import Response, near_response, planar_response
from ris_verified.shapes import as_complex, describe, require_axes, require_tensors


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
        `B x P x P` real; NaN where sources coincide, for then the symbols are not determined.
    """
    gram = B_l.mH @ B_l
    absent = torch.diagonal(gram, dim1=-2, dim2=-1).real == 0
    gram = gram + torch.diag_embed(absent.to(gram.dtype))
    cross = B_l.mH @ D_l
    schur = D_l.mH @ D_l - cross.mH @ torch.linalg.solve_ex(gram, cross)[0]
    J: Tensor = 2 * schur.real.sum(1) / noise_variance[:, None, None]
    return torch.where(_independent(gram)[:, None, None], J, torch.nan)


def _independent(gram: Tensor) -> Tensor:
    """Return whether all columns of each B_l are linearly independent, to rounding, `B` bool."""
    size = torch.diagonal(gram, dim1=-2, dim2=-1).real.sqrt()
    value = torch.linalg.eigvalsh(gram / (size[..., None] * size[..., None, :]))
    apart: Tensor = (value[..., 0] > tolerance(gram.dtype, gram.shape[-1], ROUNDINGS)).all(-1)
    return apart


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


def precision_of(H_full: Tensor) -> torch.dtype:
    """Return the real dtype of a bound: that of the channel, but not half precision, in which it is stored."""
    return torch.promote_types(H_full.dtype.to_real(), torch.float32)


def checked(
    H_full: Tensor, C: Tensor, noise_variance: Tensor | float, B: int, cfg: Config
) -> tuple[Tensor, Tensor, Tensor]:
    """Return channel, codes and the noise variance of each scene, in double precision.

    Args:
        H_full: `B x M x N` complex (or with a last axis of 2).
        C: `B x L x N` complex (or with a last axis of 2).
        noise_variance: `B` real or one number.
        B: number of scenes.
        cfg: reads `array`.

    Raises:
        ShapeError: the axes do not agree.
        InputError: a noise variance is not positive.
    """
    H_full, C = as_complex(H_full, "H_full", "B M N"), as_complex(C, "C", "B L N")
    sizes = {"B": B, "N": cfg.array.elements}
    require_axes("bound", {"H_full": "B M N", "C": "B L N"}, {"H_full": H_full, "C": C}, sizes)
    noise = torch.as_tensor(noise_variance, dtype=torch.float64, device=H_full.device)
    if noise.shape not in ((), (B,)):
        raise ShapeError(describe(noise), where="noise_variance", expected=f"one number or [{B}]")
    if not bool((noise > 0).all()):
        raise InputError(f"{float(noise.min())}", where="noise_variance", expected="positive numbers")
    return H_full.to(torch.complex128), C.to(torch.complex128), noise.expand(B)


def _bound(
    response: Response, symbols: Tensor, H_full: Tensor, C: Tensor, noise_variance: Tensor | float, cfg: Config
) -> Tensor:
    symbols = as_complex(symbols, "symbols", "B L K")
    (B, K), p, joint = response.present.shape, response.slopes.shape[-1], cfg.scene.symbols == "constant"
    precision = precision_of(H_full)
    H_full, C, noise = checked(H_full, C, noise_variance, B, cfg)
    require_axes("bound", {"symbols": "B L K", "C": "B L N"}, {"symbols": symbols, "C": C}, {"B": B, "K": K})
    seen, slopes = measured_response(H_full, C, response, joint)
    s = torch.where(response.present[:, None], symbols.to(H_full.dtype), 0).repeat_interleave(p, -1)
    J = fisher_information(seen, slopes * (s[:, :1, None] if joint else s[:, :, None]), noise)
    return position_bound(J, ~response.present.repeat_interleave(p, -1)).to(precision)


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
    constant symbols the sum runs over one snapshot that stacks all L. Computed in double precision.

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
        InputError: a noise variance is not positive, or the measurement does not determine the positions.

    Source: Stoica and Nehorai, "MUSIC, maximum likelihood, and Cramér–Rao bound", IEEE Trans.
    ASSP 37 (1989), eq. (4.1), with Φ_l per snapshot.
    """
    require_tensors(azimuth=azimuth, elevation=elevation, range=range)
    response = near_response(cfg.array, azimuth.double(), elevation.double(), range.double())
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
        InputError: a noise variance is not positive, or the measurement does not determine the positions.

    Source: Stoica and Nehorai, IEEE Trans. ASSP 37 (1989), eq. (4.1), with Φ_l per snapshot.
    """
    require_tensors(azimuth=azimuth, elevation=elevation)
    response = planar_response(cfg.array, azimuth.double(), elevation.double())
    return _bound(response, symbols, H_full, C, noise_variance, cfg)
