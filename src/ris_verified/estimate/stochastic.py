"""The stochastic Cramér–Rao bounds of the measurement model: Gaussian symbols of unknown power."""

from __future__ import annotations

import torch
from torch import Tensor

from ris_verified.config import Config
from ris_verified.errors import InputError, ShapeError
from ris_verified.estimate.bound import checked, measured_response, precision_of
from ris_verified.estimate.information import position_bound
from ris_verified.estimate.responses import Response, near_response, planar_response
from ris_verified.shapes import describe, require_tensors


def gaussian_information(seen: Tensor, slopes: Tensor, powers: Tensor, noise_variance: Tensor) -> Tensor:
    """Return J_ij = Σ_l tr(R_l⁻¹ ∂_iR_l R_l⁻¹ ∂_jR_l), R_l = B_l diag(powers) B_lᴴ + σ²I.

    R_l⁻¹ comes by Woodbury's identity from K x K matrices, so every trace is a product of entries of
    [B D]ᴴ R⁻¹ [B D] and, for σ², of [B D]ᴴ R⁻² [B D].

    Args:
        seen: `B x L x M x K` complex, B_l = Φ_l A; zero columns are absent sources.
        slopes: `B x L x M x Kp` complex, Φ_l ∂A, source by source.
        powers: `B x K` real; zero where absent.
        noise_variance: `B` real.

    Returns:
        `B x (Kp + K + 1) x (Kp + K + 1)` real: positions, powers, σ².

    Source: Slepian and Bangs, in Stoica and Moses, "Spectral analysis of signals" (2005), appendix B.
    """
    K, p = seen.shape[-1], slopes.shape[-1] // seen.shape[-1]
    first, second, trace = _inverse_forms(seen, slopes, powers, noise_variance)
    own = torch.arange(K, device=seen.device).repeat_interleave(p)
    q = powers[:, None, own]
    aa, ad, dd = first[..., :K, :K], first[..., :K, K:], first[..., K:, K:]
    cross = ad[..., own, :]
    place = 2 * (q[..., None] * q[:, :, None] * (cross * cross.mT + dd * aa[..., own, :][..., own].mT)).real
    mixed = 2 * (q[..., None] * aa[..., own, :] * ad.mT).real
    power = aa.abs().square()
    # a_kᴴ R⁻² d_i with k the source of i, and a_kᴴ R⁻² a_k.
    place_noise = 2 * q * torch.diagonal(second[..., own, K:], dim1=-2, dim2=-1).real
    power_noise = torch.diagonal(second[..., :K, :K], dim1=-2, dim2=-1).real
    noise = torch.cat([place_noise, power_noise], -1)
    J = torch.cat([torch.cat([place, mixed], -1), torch.cat([mixed.mT, power], -1)], -2)
    J = torch.cat([J, noise[..., None]], -1)
    last = torch.cat([noise, trace[..., None]], -1)
    return torch.cat([J, last[..., None, :]], -2).sum(1)


def _inverse_forms(seen: Tensor, slopes: Tensor, powers: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return XᴴR⁻¹X, XᴴR⁻²X and tr R⁻² of each snapshot, X = [B D]."""
    M, K = seen.shape[-2:]
    variance = noise[:, None, None, None]
    W = seen * powers.sqrt()[:, None, None]
    core = torch.linalg.inv(W.mH @ W + variance * torch.eye(K, dtype=seen.dtype, device=seen.device))
    X = torch.cat([seen, slopes], -1)
    solved = (X - W @ (core @ (W.mH @ X))) / variance
    # The eigenvalues of R are M − K times σ² and those of WᴴW + σ²I, whose inverse is `core`.
    trace = (M - K) / noise[:, None] ** 2 + core.abs().square().sum((-2, -1))
    return X.mH @ solved, solved.mH @ solved, trace


def _stochastic(
    response: Response, powers: Tensor, H_full: Tensor, C: Tensor, noise_variance: Tensor | float, cfg: Config
) -> Tensor:
    precision = precision_of(H_full)
    H_full, C, noise = checked(H_full, C, noise_variance, len(response.present), cfg)
    present, p = response.present, response.slopes.shape[-1]
    if powers.shape != present.shape or powers.is_complex():
        raise ShapeError(describe(powers), where="powers", expected=f"real {list(present.shape)}")
    strength = torch.where(present, powers.double(), 0)
    if not bool((strength[present] > 0).all()):
        raise InputError("not positive", where="powers", expected="a positive power of every source that is present")
    seen, slopes = measured_response(H_full, C, response, cfg.scene.symbols == "constant")
    gone = ~torch.cat([present.repeat_interleave(p, -1), present, torch.ones_like(present[:, :1])], -1)
    count = p * present.shape[1]
    bound = position_bound(gaussian_information(seen, slopes, strength, noise), gone)
    return bound[:, :count, :count].to(precision)


def stochastic_bound(
    azimuth: Tensor,
    elevation: Tensor,
    range: Tensor,
    powers: Tensor,
    H_full: Tensor,
    C: Tensor,
    noise_variance: Tensor | float,
    cfg: Config,
) -> Tensor:
    """Return the covariance bound of azimuth, elevation and range with powers and σ² as nuisance.

    bound = leading block of J⁻¹, J_ij = Σ_l tr(R_l⁻¹ ∂_iR_l R_l⁻¹ ∂_jR_l),
    R_l = Φ_l A P Aᴴ Φ_lᴴ + σ²I, P = diag(powers): independent Gaussian symbols. For constant symbols
    one snapshot stacks all L. Computed in double precision. A position moves ‖Φ_l a‖ as well, and
    with it the power that is seen, so this bound may lie below the deterministic one.

    Args:
        azimuth: `B x K` real, radians; NaN marks an absent source.
        elevation: `B x K` real, radians.
        range: `B x K` real, metres.
        powers: `B x K` real, E|s_k|²; anything where a source is absent.
        H_full: `B x M x N` complex (or with a last axis of 2).
        C: `B x L x N` complex (or with a last axis of 2).
        noise_variance: σ², `B` real or one number.
        cfg: reads `array` and `scene.symbols`.

    Returns:
        `B x 3K x 3K` real; azimuth, elevation, range source by source; rad² and m². Rows and
        columns of absent sources are NaN.

    Raises:
        ShapeError: the axes do not agree.
        InputError: a power or the noise variance is not positive, or the measurement does not determine the positions.

    Source: Slepian–Bangs formula; Stoica, Larsson and Gershman, "The stochastic CRB for array
    processing: a textbook derivation", IEEE Signal Process. Lett. 8 (2001), with Φ_l per snapshot.
    """
    require_tensors(azimuth=azimuth, elevation=elevation, range=range)
    response = near_response(cfg.array, azimuth.double(), elevation.double(), range.double())
    return _stochastic(response, powers, H_full, C, noise_variance, cfg)


def planar_stochastic_bound(
    azimuth: Tensor,
    elevation: Tensor,
    powers: Tensor,
    H_full: Tensor,
    C: Tensor,
    noise_variance: Tensor | float,
    cfg: Config,
) -> Tensor:
    """Return the covariance bound of the angles of far-field sources with powers and σ² as nuisance.

    `stochastic_bound` with plane waves and two parameters a source; not valid in the near field.

    Args:
        azimuth: `B x K` real, radians; NaN marks an absent source.
        elevation: `B x K` real, radians.
        powers: `B x K` real, E|s_k|²; anything where a source is absent.
        H_full: `B x M x N` complex (or with a last axis of 2).
        C: `B x L x N` complex (or with a last axis of 2).
        noise_variance: σ², `B` real or one number.
        cfg: reads `array` and `scene.symbols`.

    Returns:
        `B x 2K x 2K` real; azimuth, elevation source by source; rad². Rows and columns of absent
        sources are NaN.

    Raises:
        ShapeError: the axes do not agree.
        InputError: a power or the noise variance is not positive, or the measurement does not determine the angles.

    Source: as `stochastic_bound`.
    """
    require_tensors(azimuth=azimuth, elevation=elevation)
    response = planar_response(cfg.array, azimuth.double(), elevation.double())
    return _stochastic(response, powers, H_full, C, noise_variance, cfg)
