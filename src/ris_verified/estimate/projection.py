"""Variable projection in the measurement domain: the model at some positions, its symbols solved for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ris_verified.array.steering import steering
from ris_verified.estimate.measurement import Measurement, power
from ris_verified.estimate.parameters import by_order, with_slopes


@dataclass(frozen=True)
class Fit:
    """The model at some positions, its symbols solved for, with all that a step needs.

    Args:
        parameters: `B x K x 3` real, azimuth, elevation, 1/range.
        rss: `B` real, Σ_l ‖P⊥(Φ_l A) y_l‖², with the Tikhonov term where there is one.
        curvature: `B x 3K x 3K` real, Re Σ_l D_lᴴ P⊥ D_l.
        slope: `B x 3K` real, minus half the gradient of `rss`.
        columns: `B x L x M x K` complex, B_l = Φ_l A.
        whitener: `B x L x K x K` complex, the inverse of the Cholesky factor of B_lᴴ B_l.
        symbols: `B x L x K` complex.
        residual: `B x L x M` complex.
    """

    parameters: Tensor
    rss: Tensor
    curvature: Tensor
    slope: Tensor
    columns: Tensor
    whitener: Tensor
    symbols: Tensor
    residual: Tensor

    def where(self, chosen: Tensor, other: Fit) -> Fit:
        """Return this fit for the chosen scenes and the other one for the rest."""

        def pick(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(chosen.view(-1, *[1] * (mine.ndim - 1)), mine, theirs)

        return Fit(**{name: pick(mine, vars(other)[name]) for name, mine in vars(self).items()})

    def only(self, chosen: Tensor) -> Fit:
        """Return some of the scenes."""
        return Fit(**{name: value[chosen] for name, value in vars(self).items()})

    @property
    def basis(self) -> Tensor:
        """Orthonormal rows that span the columns of each snapshot, `B x L x K x M` complex: their transposes."""
        rows: Tensor = self.whitener.conj() @ self.columns.mT
        return rows

    @property
    def noise_variance(self) -> Tensor:
        """Unbiased estimate, `B` real: RSS/(rows − unknowns), complex unknowns: K a set of symbols, 3K/2 positions."""
        _, L, M, K = self.columns.shape
        return self.rss / max(1.0, L * M - K * (L + 1.5))

    @property
    def inverse_diagonal(self) -> Tensor:
        """Diagonal of each (B_lᴴ B_l)⁻¹, `B x L x K` real."""
        return power(self.whitener).sum(-2)


def solved(columns: Tensor, y: Tensor, load: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the symbols s of least ‖y_l − B_l s‖² + Σ_k load_k |s_k|², with what made them and what they leave.

    Args:
        columns: `B x L x M x K` complex, B_l.
        y: `B x L x M` complex.
        load: `B x L x K` real, or what expands to it.

    Returns:
        The inverse Cholesky factor of B_lᴴ B_l + load, `B x L x K x K`; symbols `B x L x K`; residual `B x L x M`.
    """
    adjoint = columns.mH
    gram = adjoint @ columns
    identity = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky_ex(gram + load[..., None] * identity)[0]
    whitener = torch.linalg.solve_triangular(factor, identity, upper=False)
    symbols = whitener.mH @ (whitener @ (adjoint @ y[..., None]))
    return whitener, symbols[..., 0], y - (columns @ symbols)[..., 0]


def fit(parameters: Tensor, data: Measurement, load: Tensor | None = None) -> Fit:
    """Solve for the symbols at given positions and linearise around them.

    The Jacobian is Kaufman's −P⊥ Φ_l ∂a_k ŝ_lk. The Gram matrices are loaded by `estimate.mle_ridge`, and by
    rounding, so that coinciding sources stay solvable.

    Args:
        parameters: `B x K x 3` real, all finite.
        data: the measurements.

    Returns:
        A `Fit`.

    Source: Golub and Pereyra, SIAM J. Numer. Anal. 10 (1973); Kaufman, BIT 15 (1975).
    """
    K = parameters.shape[1]
    seen = data.seen(with_slopes(parameters, data.cfg.array).flatten(1, 2).mT).unflatten(-1, (K, 4))
    # Strided columns make batched products of this size several times slower.
    columns, tangents = seen[..., 0].contiguous(), seen[..., 1:]
    cost, whitener, symbols, residual = _projected(columns, data, load)
    D = (tangents * symbols[:, :, None, :, None]).flatten(-2)
    inside = (whitener @ (columns.mH @ D)).flatten(1, 2)
    D = D.flatten(1, 2)
    curvature = (D.mH @ D - inside.mH @ inside).real
    # The symbols are the best ones, so the slope is that at fixed symbols.
    slope = (D.mH @ residual.flatten(1)[..., None]).real[..., 0]
    return Fit(parameters, cost, curvature, slope, columns, whitener, symbols, residual)


def _projected(columns: Tensor, data: Measurement, load: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    _, _, M, K = columns.shape
    size = power(columns).sum((2, 3)) / K
    weight = data.cfg.estimate.mle_ridge + (size.new_zeros(1, K) if load is None else load)
    rounding = 8 * torch.finfo(size.dtype).eps * M * size
    whitener, symbols, residual = solved(columns, data.y, rounding[..., None] + weight[:, None])
    cost = power(residual).sum((1, 2)) + (weight[:, None] * power(symbols)).sum((1, 2))
    return cost, whitener, symbols, residual


def objective(parameters: Tensor, data: Measurement) -> Tensor:
    """Return Σ_l ‖P⊥(Φ_l A) y_l‖², with the Tikhonov term where there is one.

    Args:
        parameters: `B x K x 3` real, NaN rows are absent.
        data: the measurements.

    Returns:
        `B` real.
    """
    value = data.energy
    for scenes, rows in by_order(parameters, len(parameters)):
        azimuth, elevation, inverse = parameters[scenes[:, None], rows].unbind(-1)
        part = data.only(scenes)
        columns = part.seen(steering(part.cfg.array, azimuth, elevation, 1 / inverse).mT)
        value = value.index_put((scenes,), _projected(columns, part)[0])
    return value


def put(into: Fit, places: Tensor, part: Fit) -> Fit:
    """Return `into` with some of its scenes, in order, replaced."""
    if len(places) == len(into.rss):
        return part
    return Fit(**{name: value.index_copy(0, places, vars(part)[name]) for name, value in vars(into).items()})
