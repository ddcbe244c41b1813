"""NF-MLE: maximum likelihood in the measurement domain, with the covariance of the estimate."""

from __future__ import annotations

import torch
from jaxtyping import Complex
from torch import Tensor

from ris_verified.array.steering import steering
from ris_verified.config import Config
from ris_verified.estimate.beside import beside, snr
from ris_verified.estimate.descent import descend
from ris_verified.estimate.field import see
from ris_verified.estimate.information import inverted
from ris_verified.estimate.linearised import Linearised, linearised, linearised_gaussian
from ris_verified.estimate.measurement import Measurement, power
from ris_verified.estimate.parameters import by_order, to_parameters, to_peaks, widened
from ris_verified.estimate.projection import Fit, fit, put
from ris_verified.estimate.result import Estimates, Peaks, require_places
from ris_verified.estimate.search import exchanged
from ris_verified.shapes import require_axes, shaped

# Scenes at a time, and where the precision is that of the data: Φ of more is fresh memory each time.
CHUNK, WIDE = 64, 32
# Where the last step is this share of one sigma, what is left of the way is less.
CLOSE = 1e-2
# Up to here single precision does.
NEAR, APPROACH = 0.01, 8
# Loads up to so many times the rounding of ‖b_lk‖² are not told apart from it.
BLUR = 64
# |a_iᴴ a_j|²/(‖a_i‖² ‖a_j‖²) above which two sources are too close to believe at once.
ONE_LOBE = 0.9
# A source that explains fewer nats, about what the order asks of one, may be where noise put it.
WEAK = 6.0


def snr_db(done: Fit, data: Measurement) -> Tensor:
    """Return the SNR in decibels that a fit implies, `B` real."""
    return 10 * torch.log10(snr(done, data))


@shaped
def nf_mle(
    peaks: Peaks,
    y: Complex[Tensor, "B L M"],
    H_full: Complex[Tensor, "B M N"],
    C: Complex[Tensor, "B L N"],
    cfg: Config,
) -> Estimates:
    """Find the likeliest positions of all sources jointly, beginning at `peaks`; the cost never rises.

    By variable projection: q = Σ_l min_s ‖y_l − B_l s‖² + λ‖s‖² with B_l = Φ_l A(p). With `estimate.prior = "scene"`
    symbols are Gaussian, λ = σ²/power + `estimate.mle_ridge` is fitted along, and the cost is n log q + Σ_l log
    det(I + B_lᴴ B_l/λ). With `"none"` symbols are free, λ = `estimate.mle_ridge`, and the cost is q, without a ridge
    Σ_l ‖P⊥(B_l) y_l‖². Where two sources begin or end within one lobe, or one explains as little as noise would, one is
    moved to where another is missing, if that lowers the cost.

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
        noise variance, NaN where the measurement does not determine all positions.

    Raises:
        ShapeError: the axes do not agree.

    Source: Stoica and Nehorai, "Performance study of conditional and unconditional direction-of-arrival
    estimation", IEEE Trans. ASSP 38 (1990), with Φ_l per snapshot.
    """
    require_axes("mle", {"C": "B L N"}, {"C": C}, {"N": cfg.array.elements})
    require_places("mle, peaks", peaks, len(y))
    start = to_parameters(peaks).to(y.real.dtype)
    B, most = start.shape[:2]
    fitted, covariance = torch.full_like(start, torch.nan), start.new_full((B, 3 * most, 3 * most), torch.nan)
    for scenes, rows in by_order(start, CHUNK):
        first = start[scenes[:, None], rows]
        near = _approached(first, Measurement.of(*_some(scenes, y, H_full, C, torch.complex64), cfg))
        entries = (3 * rows[..., None] + torch.arange(3, device=rows.device)).flatten(1)
        for i in torch.arange(len(scenes), device=rows.device).split(WIDE):
            data = Measurement.of(*_some(scenes[i], y, H_full, C, y.dtype), cfg)
            done = _refined(first[i], near.only(i), data)
            fitted[scenes[i, None], rows[i]] = done.parameters
            covariance[scenes[i, None, None], entries[i][:, :, None], entries[i][:, None]] = _covariance(done, data)
    found, order = to_peaks(fitted), torch.isfinite(start).all(-1).sum(-1)
    return Estimates(found.azimuth, found.elevation, found.range, order, covariance)


def _some(scenes: Tensor, y: Tensor, H_full: Tensor, C: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    return y[scenes].to(dtype), H_full[scenes].to(dtype), C[scenes].to(dtype)


def _refined(start: Tensor, near: Linearised, data: Measurement) -> Linearised:
    e = data.cfg.estimate
    if not e.mle:
        return _fitted(start, data)
    after = _descended(near, data)
    doubtful = _share_a_lobe(start, data) | _share_a_lobe(after.parameters, data) | _weak(after, data)
    after = _exchanged(after, torch.nonzero(doubtful)[:, 0], data)
    kept = (fit(start, data, after.given_load(data)).cost < after.cost) | (snr_db(after, data) < e.mle_snr_threshold_db)
    scenes = torch.nonzero(kept)[:, 0]
    return put(after, scenes, _fitted(start[scenes], data.only(scenes))) if len(scenes) else after


def _fitted(start: Tensor, data: Measurement) -> Linearised:
    gaussian = data.cfg.estimate.prior == "scene"
    return linearised_gaussian(start, data) if gaussian else linearised(start, data)


def _approached(start: Tensor, data: Measurement) -> Linearised:
    """Go most of the way, in single precision: it takes half the time."""
    e = data.cfg.estimate
    near = _fitted(start.to(data.y.real.dtype), data)
    return descend(near, data, min(APPROACH, e.mle_iterations), NEAR) if e.mle else near


def _share_a_lobe(parameters: Tensor, data: Measurement) -> Tensor:
    azimuth, elevation, inverse = parameters.unbind(-1)
    a = steering(data.cfg.array, azimuth, elevation, 1 / inverse)
    a = a / torch.linalg.vector_norm(a, dim=-1, keepdim=True)
    shared: Tensor = (power((a.conj() @ a.mT).tril(-1)) > ONE_LOBE).flatten(1).any(1)
    return shared


def _weak(done: Fit, data: Measurement) -> Tensor:
    """Return in which scenes a source explains little; free symbols explain some of the noise anywhere."""
    if done.free:
        return torch.zeros_like(done.rss, dtype=torch.bool)
    loss = beside(done, data).loss(done.symbols, done.inverse_diagonal).sum(1)
    return loss.amin(-1) < WEAK


def _descended(near: Fit, data: Measurement) -> Linearised:
    """Go on in the precision of the data."""
    places, load = widened(near.parameters, data.cfg, data.y.real.dtype), None
    if not near.free:
        # Rounding of single precision hides what noise there is below it.
        load = near.likelier_load.to(data.y.real.dtype)
        blurred = torch.nonzero(load[:, 0] <= BLUR * torch.finfo(near.rss.dtype).eps * near.size)[:, 0]
        if len(blurred):
            load[blurred] = fit(places[blurred], data.only(blurred)).likelier_load
    start = linearised(places, data, load)
    return descend(start, data, data.cfg.estimate.mle_iterations, CLOSE)


def _exchanged(done: Linearised, scenes: Tensor, data: Measurement) -> Linearised:
    """Try in some scenes whether one of their sources belongs elsewhere; single precision tells where."""
    if not len(scenes):
        return done
    rough, now = data.only(scenes).to(torch.complex64), done.only(scenes)
    before = fit(now.parameters.float(), rough, None if now.free else now.likelier_load.float())
    other = exchanged(before, rough, see(rough))
    moved = torch.nonzero((other.parameters != before.parameters).flatten(1).any(1))[:, 0]
    if not len(moved):
        return done
    scenes = scenes[moved]
    after = _descended(other.only(moved), data.only(scenes))
    return put(done, scenes, after.where(after.cost < now.cost[moved], now.only(moved)))


def _covariance(done: Linearised, data: Measurement) -> Tensor:
    """Return σ̂²/2 · (Re Σ Dᴴ P⊥ D)⁻¹ of azimuth, elevation and range, NaN where the measurement determines less."""
    inverse = inverted(done.curvature)
    slope = torch.ones_like(done.parameters)
    slope[..., 2] = -1 / done.parameters[..., 2].square()
    slope = slope.flatten(1)
    bound: Tensor = 0.5 * done.noise_variance[:, None, None] * slope[:, None] * slope[:, :, None] * inverse
    return (bound + bound.mT) / 2
