"""Levenberg–Marquardt steps on the projected objective, all sources of a scene jointly."""

from __future__ import annotations

import torch
from torch import Tensor

from ris_verified.estimate.linearised import Linearised, linearised
from ris_verified.estimate.measurement import Measurement
from ris_verified.estimate.parameters import clamped, limits
from ris_verified.estimate.projection import Fit, fit, put

DAMPING = 1e-2
LOWEST_DAMPING = 1e-9
HIGHEST_DAMPING = 1e9


def _step(
    now: Linearised, secant: Tensor, damping: Tensor, data: Measurement, still: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the damped step and its promised decrease; a parameter that it would push out of the view stays."""
    low, high = limits(data.cfg, now.parameters)
    slope = now.slope.unflatten(-1, (-1, 3))
    held = ((now.parameters <= low) & (slope < 0)) | ((now.parameters >= high) & (slope > 0))
    held = held if still is None else held | still[..., None]
    free = (~held).flatten(1).to(slope.dtype)
    diagonal = torch.diagonal(now.curvature, dim1=-2, dim2=-1)
    floor = torch.finfo(slope.dtype).eps * diagonal.amax(-1, keepdim=True)
    # One element alone sees no direction at all.
    floor = floor.clamp_min(torch.finfo(slope.dtype).tiny)
    matrix = now.curvature + secant + torch.diag_embed(damping[:, None] * diagonal + floor)
    step = _solved(matrix, now.slope, free)
    # What would cross a limit stops there, and the others step knowing that.
    there = now.parameters + step.unflatten(-1, (-1, 3))
    short = clamped(there, data.cfg) - now.parameters
    inside = ((there >= low) & (there <= high)).flatten(1).to(slope.dtype)
    stopped = short.flatten(1) * (1 - inside)
    step = stopped + _solved(matrix, now.slope - (matrix @ stopped[..., None])[..., 0], free * inside)
    return step.unflatten(-1, (-1, 3)), (step * now.slope).sum(-1)


def _solved(matrix: Tensor, slope: Tensor, free: Tensor) -> Tensor:
    diagonal = torch.diagonal(matrix, dim1=-2, dim2=-1)
    kept = matrix * free[:, None] * free[:, :, None] + torch.diag_embed((1 - free) * diagonal)
    solved: Tensor = torch.linalg.solve(kept, slope * free)
    return solved


def improved(now: Linearised, data: Measurement, load: Tensor | None, still: Tensor | None = None) -> Fit:
    """Take one damped step where that raises the likelihood; nothing here waits for the device.

    Args:
        now: where to step from.
        data: the measurements.
        load: that of the fit there, as for `fit`.
        still: `B x K` bool, sources that stay where they are; None lets all move.

    Returns:
        A `Fit`, not linearised.
    """
    damping = torch.full_like(now.rss, DAMPING)
    step, _ = _step(now, torch.zeros_like(now.curvature), damping, data, still)
    trial = fit(clamped(now.parameters + step, data.cfg), data, load)
    return trial.where(trial.cost < now.cost, now)


def moved(start: Linearised, data: Measurement, steps: int, close: float) -> Fit:
    """Take so many steps, each where it raises the likelihood; after the last nothing is linearised."""
    now = start if steps == 1 else descend(start, data, steps - 1, close, learn=False)
    return improved(now, data, now.next_load)


def _learned(secant: Tensor, before: Linearised, after: Linearised) -> Tensor:
    """Return what the slopes say about the curvature that Gauss–Newton leaves out, by a symmetric rank-one update."""
    step = (after.parameters - before.parameters).flatten(1)
    missed = before.slope - after.slope - ((after.curvature + secant) @ step[..., None])[..., 0]
    along = (missed * step).sum(-1)
    tiny = torch.finfo(step.dtype).eps ** 0.5
    sure = along.abs() > tiny * torch.linalg.vector_norm(missed, dim=-1) * torch.linalg.vector_norm(step, dim=-1)
    share = torch.where(sure, 1 / along, 0.0)
    return secant + share[:, None, None] * missed[:, :, None] * missed[:, None]


def descend(start: Linearised, data: Measurement, iterations: int, close: float, *, learn: bool = True) -> Linearised:
    """Run Levenberg–Marquardt on all sources jointly; the cost never increases.

    Where symbols are Gaussian their power goes along, one round of its fixed point a step.

    Args:
        start: where to begin.
        data: the measurements.
        iterations: most steps.
        close: a scene rests where a full step is shorter than this share of one sigma of the estimate, or
            has changed the cost by rounding only.
        learn: whether slopes teach the missed curvature. Far from an end that turns rounding into other ways there.

    Returns:
        A `Linearised`.

    Source: Marquardt, J. SIAM 11 (1963), with an active set for the limits of the view; the secant part
    after Dennis, Gay and Welsch, ACM Trans. Math. Softw. 7 (1981), with the symmetric rank-one formula.
    """
    best, damping, secant = start, torch.full_like(start.rss, DAMPING), torch.zeros_like(start.curvature)
    moving, part, now = torch.arange(len(damping), device=damping.device), data, start
    rests = torch.zeros_like(damping, dtype=torch.bool)
    for _ in range(iterations):
        step, promised = _step(now, secant, damping, part)
        # The covariance of the estimate is σ²/2 · curvature⁻¹, so 2 · promised/σ² is the square of the step in sigmas.
        rests = rests | ((promised >= 0) & (2 * promised * (1 + damping) <= close**2 * now.noise_variance))
        # Taking scenes out copies the others: worth it only for a good part of them.
        if 4 * int(rests.sum()) >= len(rests):
            best, goes = put(best, moving, now), ~rests
            if not bool(goes.any()):
                return best
            moving, part, now, step = moving[goes], part.only(goes), now.only(goes), step[goes]
            damping, secant, rests = damping[goes], secant[goes], rests[goes]
        trial = linearised(clamped(now.parameters + step, part.cfg), part, now.next_load)
        better = (trial.cost < now.cost) & ~rests
        rests = rests | ((now.cost - trial.cost).abs() <= 100 * torch.finfo(damping.dtype).eps * part.rows)
        secant = _learned(secant, now, trial) if learn else secant
        now = trial.where(better, now)
        damping = torch.where(better, damping / 10, damping * 10).clamp(LOWEST_DAMPING, HIGHEST_DAMPING)
        rests = rests | (damping >= HIGHEST_DAMPING)
    return put(best, moving, now)
