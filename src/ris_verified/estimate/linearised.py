"""The model around some positions: how the objective falls and bends there."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ris_verified.estimate.measurement import Measurement
from ris_verified.estimate.parameters import with_slopes
from ris_verified.estimate.projection import Fit, fit_columns


@dataclass(frozen=True)
class Linearised(Fit):
    """A fit with all that a step needs.

    Args:
        curvature: `B x 3K x 3K` real, Re Σ_l D_lᴴ P⊥ D_l.
        slope: `B x 3K` real, minus the gradient of `cost`, times rss/2n.
    """

    curvature: Tensor
    slope: Tensor

    @property
    def fit(self) -> Fit:
        """The fit alone."""
        return Fit(**{name: value for name, value in vars(self).items() if name not in ("curvature", "slope")})


def linearised(parameters: Tensor, data: Measurement, load: Tensor | None = None) -> Linearised:
    """Return `fit` at given positions, linearised there.

    The Jacobian is Kaufman's −P⊥ Φ_l ∂a_k ŝ_lk.

    Args:
        parameters: `B x K x 3` real, all finite.
        data: the measurements.
        load: as for `fit`.

    Returns:
        A `Linearised`.

    Source: Kaufman, BIT 15 (1975).
    """
    columns, tangents = _seen(parameters, data)
    return _with_slopes(fit_columns(parameters, columns, data, load), tangents, data)


def linearised_gaussian(parameters: Tensor, data: Measurement) -> Linearised:
    """Return `linearised` with Gaussian symbols of about the power that free ones have there."""
    columns, tangents = _seen(parameters, data)
    free = fit_columns(parameters, columns, data, None)
    return _with_slopes(fit_columns(parameters, columns, data, free.likelier_load), tangents, data)


def linearise(now: Fit, data: Measurement) -> Linearised:
    """Return a fit linearised where it is."""
    return _with_slopes(now, data.seen(with_slopes(now.parameters, data.cfg.array)[1].flatten(1, 2)), data)


def _seen(parameters: Tensor, data: Measurement) -> tuple[Tensor, Tensor]:
    K = parameters.shape[1]
    a, slopes = with_slopes(parameters, data.cfg.array)
    seen = data.seen(torch.cat([a, slopes.flatten(1, 2)], 1))
    # Strided columns make batched products of this size several times slower.
    return seen[..., :K].contiguous(), seen[..., K:]


def _with_slopes(now: Fit, tangents: Tensor, data: Measurement) -> Linearised:
    K = now.parameters.shape[1]
    s = now.symbols.repeat_interleave(3, -1)
    adjoint = torch.cat([now.columns, now.residual[..., None]], -1).mH
    along = adjoint @ tangents
    D, across = (tangents * s[:, :, None]).flatten(1, 2), now.whitener @ along[:, :, :K]
    inside = (across * s[:, :, None]).flatten(1, 2)
    curvature = _real_inner(D, D) - _real_inner(inside, inside)
    # The symbols are the best ones, so the slope is that at fixed symbols.
    slope = (along[:, :, K] * s).real.sum(1)
    if not now.free:
        # −½ ∂ log det (B_lᴴ B_l + load) = −Re tr((B_lᴴ B_l + load)⁻¹ B_lᴴ ∂B_l).
        spread = (now.whitener.conj()[..., None] * across.unflatten(-1, (K, 3))).real.sum((1, 2))
        slope = slope - (now.rss / data.rows)[:, None] * spread.flatten(1)
    return Linearised(**vars(now), curvature=curvature, slope=slope)


def _real_inner(a: Tensor, b: Tensor) -> Tensor:
    """Return Re aᴴb without a conjugate in memory, which costs as much as the product."""
    a, b = (torch.view_as_real(z).flatten(-2) for z in (a, b))
    both = a.mT @ b
    return both[..., ::2, ::2] + both[..., 1::2, 1::2]
