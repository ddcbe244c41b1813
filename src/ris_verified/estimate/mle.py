"""NF-MLE: maximum likelihood in the measurement domain, with the covariance of the estimate."""

from __future__ import annotations

import torch
from torch import Tensor

from ris_verified.config import Config
from ris_verified.estimate.bound import cramer_rao_bound
from ris_verified.estimate.projection import Measurement, descend, solve_symbols, to_parameters, to_peaks
from ris_verified.estimate.result import Estimates, Peaks


def noise_and_snr(residual: Tensor, energy: Tensor, order: Tensor, data: Measurement) -> tuple[Tensor, Tensor]:
    """Return the unbiased noise variance from a fit, and the SNR in decibels that it implies.

    σ̂² = RSS/(rows − unknowns), the unknowns counted as complex numbers: K symbols a snapshot (one set
    where symbols are constant) and 3K/2 for the positions.

    Args:
        residual: `B` real, RSS of the fit.
        energy: `B` real, Σ ‖y‖².
        order: `B` int64.
        data: the measurements.

    Returns:
        Two `B` real.
    """
    rows = data.y[0].numel()
    unknowns = order * (data.y.shape[1] + 1.5)
    variance = residual / (rows - unknowns).clamp_min(1)
    signal = (energy / rows - variance).clamp_min(torch.finfo(variance.dtype).tiny)
    return variance, 10 * torch.log10(signal / variance.clamp_min(torch.finfo(variance.dtype).tiny))


def nf_mle(peaks: Peaks, y: Tensor, H_full: Tensor, C: Tensor, cfg: Config) -> Estimates:
    """Minimise Σ_l ‖P⊥(Φ_l A(p)) y_l‖² jointly over all sources, beginning at `peaks`.

    Scenes whose estimated SNR is below `estimate.mle_snr_threshold_db` keep their peaks, and all do where
    `estimate.mle` is off.

    Args:
        peaks: `B x K_MAX` positions, NaN beyond the order.
        y: `B x L x M` complex.
        H_full: `B x M x N` complex.
        C: `B x L x N` complex.
        cfg: reads `estimate`, `scene` and `array`.

    Returns:
        `Estimates`; the covariance is the Cramér–Rao bound at the estimate with estimated symbols and
        noise variance.

    Source: Stoica and Sharman, "Maximum likelihood methods for direction-of-arrival estimation", IEEE
    Trans. ASSP 38 (1990), with Φ_l per snapshot.
    """
    data = Measurement.of(y, H_full, C, cfg)
    start = to_parameters(peaks).to(y.real.dtype)
    order = torch.isfinite(start).all(-1).sum(-1)
    fitted = _refined(start, data, order) if cfg.estimate.mle else start
    found = to_peaks(fitted)
    return Estimates(found.azimuth, found.elevation, found.range, order, _covariance(fitted, data, order))


def _refined(start: Tensor, data: Measurement, order: Tensor) -> Tensor:
    fitted, residual = descend(start, data, data.cfg.estimate.mle_iterations)
    _, snr_db = noise_and_snr(residual, data.energy, order, data)
    weak = snr_db < data.cfg.estimate.mle_snr_threshold_db
    return torch.where(weak[:, None, None], start, fitted)


def _covariance(parameters: Tensor, data: Measurement, order: Tensor) -> Tensor:
    symbols, residual = solve_symbols(parameters, data)
    variance, _ = noise_and_snr(residual.abs().square().sum((1, 2)), data.energy, order, data)
    place = to_peaks(parameters)
    return cramer_rao_bound(
        place.azimuth, place.elevation, place.range, symbols.expand(-1, data.C.shape[1], -1),
        data.H_full, data.C, variance, data.cfg,
    )  # fmt: skip
