"""Near-field Newton on the MUSIC null spectrum."""

from __future__ import annotations

import torch
from jaxtyping import Complex, Int
from torch import Tensor

from ris_verified.array.steering import steering
from ris_verified.config import Config
from ris_verified.estimate.parameters import clamped, to_parameters, to_peaks, with_slopes
from ris_verified.estimate.result import Peaks, require_places
from ris_verified.estimate.subspace import signal_subspace
from ris_verified.shapes import require_axes, shaped


def null_spectrum(parameters: Tensor, U: Tensor, cfg: Config) -> Tensor:
    """Return 1 − ‖Uᴴa‖²/‖a‖² for each position.

    Args:
        parameters: `B x K x 3` real, azimuth, elevation, 1/range.
        U: `B x N x P` complex, orthonormal or zero columns.
        cfg: reads `array`.

    Returns:
        `B x K` real.
    """
    azimuth, elevation, inverse = parameters.unbind(-1)
    a = steering(cfg.array, azimuth, elevation, 1 / inverse)
    inside: Tensor = (a.conj() @ U).abs().square().sum(-1)
    share: Tensor = inside / a.abs().square().sum(-1)
    return 1 - share


def _step(parameters: Tensor, U: Tensor, damping: Tensor, cfg: Config) -> Tensor:
    a, slopes = with_slopes(parameters, cfg.array)
    both = torch.cat([a[:, :, None], slopes], 2).mT
    # What the noise subspace sees of a and of its derivatives, for every source at once.
    outside = both - torch.einsum("bnp,bkpq->bknq", U, torch.einsum("bnp,bknq->bkpq", U.conj(), both))
    r, J = outside[..., :1], outside[..., 1:]
    gradient, hessian = (J.mH @ r).real[..., 0], (J.mH @ J).real
    diagonal = torch.diagonal(hessian, dim1=-2, dim2=-1)
    floor = torch.finfo(diagonal.dtype).eps * diagonal.amax(-1, keepdim=True)
    # One element alone sees no direction at all.
    lifted = damping[..., None] * diagonal + floor.clamp_min(torch.finfo(diagonal.dtype).tiny)
    step: Tensor = torch.linalg.solve(hessian + torch.diag_embed(lifted), -gradient)
    return step


@shaped
def near_field_newton(R: Complex[Tensor, "B N N"], K: Int[Tensor, " B"], peaks: Peaks, cfg: Config) -> Peaks:
    """Refine each peak by joint damped Gauss–Newton steps in azimuth, elevation and 1/range.

    f(p) = ‖(I − UUᴴ) a(p)‖²/N; a step is kept only where it lowers f, so f never increases.

    Args:
        R: `B x N x N` complex, Hermitian.
        K: `B` int64.
        peaks: where to begin, NaN beyond K.
        cfg: reads `estimate.newton_iterations` and `estimate.newton_step`.

    Returns:
        `Peaks`, inside the field of view.

    Raises:
        ShapeError: the axes do not agree.

    Source: checklist RV1202; Levenberg's safeguard, Quart. Appl. Math. 2 (1944).
    """
    require_axes("newton", {"R": "B N N"}, {"R": R}, {"N": cfg.array.elements})
    require_places("newton, peaks", peaks, len(K))
    U = signal_subspace(R, K, cfg.scene.sources_max)
    given = to_parameters(peaks).to(R.real.dtype)
    present = torch.isfinite(given).all(-1)
    best = clamped(torch.where(present[..., None], given, torch.ones_like(given)), cfg)
    value = null_spectrum(best, U, cfg)
    damping = torch.full_like(value, 1e-3)
    for _ in range(cfg.estimate.newton_iterations):
        trial = clamped(best + cfg.estimate.newton_step * _step(best, U, damping, cfg), cfg)
        new = null_spectrum(trial, U, cfg)
        better = new < value
        best = torch.where(better[..., None], trial, best)
        value = torch.where(better, new, value)
        damping = torch.where(better, damping / 10, damping * 10).clamp(1e-9, 1e9)
    return to_peaks(torch.where(present[..., None], best, torch.nan))
