"""Variable projection in the measurement domain: the model at some positions, its symbols solved for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ris_verified.array.steering import steering
from ris_verified.estimate.measurement import Measurement, power
from ris_verified.estimate.parameters import by_order, with_slopes

# A prior stronger than this over the mean of ‖b_lk‖² says no more than one at the limit, nor one weaker than rounding.
STRONGEST = 1e3


@dataclass(frozen=True)
class Fit:
    """The model at some positions, its symbols solved for, with all that a step needs.

    Args:
        parameters: `B x K x 3` real, azimuth, elevation, 1/range.
        cost: `B` real, minus the log-likelihood in nats up to a constant: n log(rss/n), and where symbols are Gaussian
            Σ_l log det(I + B_lᴴ B_l/load).
        rss: `B` real, Σ_l min_s ‖y_l − B_l s‖² + Σ_k load_k |s_k|².
        curvature: `B x 3K x 3K` real, Re Σ_l D_lᴴ P⊥ D_l.
        slope: `B x 3K` real, minus the gradient of `cost`, times rss/2n.
        columns: `B x L x M x K` complex, B_l = Φ_l A.
        whitener: `B x L x K x K` complex, the inverse of the Cholesky factor of B_lᴴ B_l + load.
        symbols: `B x L x K` complex.
        residual: `B x L x M` complex.
        load: `B x K` real, noise over symbol power, σ²/p_k; zero where symbols are free.
        free: whether they are.
    """

    parameters: Tensor
    cost: Tensor
    rss: Tensor
    curvature: Tensor
    slope: Tensor
    columns: Tensor
    whitener: Tensor
    symbols: Tensor
    residual: Tensor
    load: Tensor
    free: bool

    def where(self, chosen: Tensor, other: Fit) -> Fit:
        """Return this fit for the chosen scenes and the other one for the rest."""

        def pick(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(chosen.view(-1, *[1] * (mine.ndim - 1)), mine, theirs)

        return Fit(**{name: pick(mine, other.tensors[name]) for name, mine in self.tensors.items()}, free=self.free)

    def only(self, chosen: Tensor) -> Fit:
        """Return some of the scenes."""
        return Fit(**{name: value[chosen] for name, value in self.tensors.items()}, free=self.free)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All fields that have an entry for each scene."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    @property
    def basis(self) -> Tensor:
        """Rows q with R_l⁻¹ = (I − Σ q̄ qᵀ)/σ², `B x L x K x M` complex: orthonormal where symbols are free."""
        rows: Tensor = self.whitener.conj() @ self.columns.mT
        return rows

    @property
    def noise_variance(self) -> Tensor:
        """Unbiased estimate, `B` real: rss over rows less unknowns, 3K/2 positions and K free symbols a snapshot."""
        _, L, M, K = self.columns.shape
        return self.rss / max(1.0, L * M - K * (1.5 + (L if self.free else 0)))

    @property
    def inverse_diagonal(self) -> Tensor:
        """Diagonal of each (B_lᴴ B_l + load)⁻¹, `B x L x K` real."""
        return power(self.whitener).sum(-2)

    def free_rss(self, data: Measurement) -> Tensor:
        """Return Σ_l ‖P⊥(B_l) y_l‖² at these positions, with the Tikhonov term where there is one, `B` real."""
        return self.rss if self.free else _projected(self.columns, data)[1]

    def given_load(self, data: Measurement) -> Tensor | None:
        """Return the `load` that makes this fit in `fit`, without the Tikhonov weight; None where symbols are free."""
        return None if self.free else self.load - data.cfg.estimate.mle_ridge

    @property
    def next_load(self) -> Tensor | None:
        """`likelier_load`; None where symbols are free."""
        return None if self.free else self.likelier_load

    @property
    def likelier_load(self) -> Tensor:
        """The load, one for all sources, that one round of MacKay's fixed point makes of this one, `B x 1` real.

        p ← Σ_lk |s_lk|²/Σ_lk γ_lk, with γ_lk = 1 − load V_l,kk the part of a symbol that the measurements determine.

        Source: MacKay, "Bayesian interpolation", Neural Computation 4 (1992), eq. 4.8.
        """
        size = power(self.columns).mean((1, 3)).sum(-1)
        eps = torch.finfo(size.dtype).eps
        determined = (1 - self.load[:, None] * self.inverse_diagonal).clamp_min(eps).sum((1, 2))
        symbol_power = power(self.symbols).sum((1, 2)) / determined
        # The fixed point is where `cost` is least in the load, and so is its noise.
        _, L, M, _ = self.columns.shape
        noise = self.noise_variance if self.free else self.rss / (L * M)
        load = noise / symbol_power.clamp_min(torch.finfo(size.dtype).tiny)
        return torch.minimum(torch.maximum(load, eps * size), STRONGEST * size)[:, None]


def solved(columns: Tensor, y: Tensor, load: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the symbols s of least ‖y_l − B_l s‖² + Σ_k load_k |s_k|², with what made them and what they leave.

    Args:
        columns: `B x L x M x K` complex, B_l.
        y: `B x L x M` complex.
        load: `B x L x K` real, or what expands to it.

    Returns:
        The inverse Cholesky factor of B_lᴴ B_l + load, `B x L x K x K`; symbols `B x L x K`; residual `B x L x M`.
    """
    adjoint = columns.conj().resolve_conj().mT
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
        load: `B x K` or `B x 1` real, σ²/p_k of Gaussian symbols, which are integrated out; None leaves them free.

    Returns:
        A `Fit`.

    Source: Golub and Pereyra, SIAM J. Numer. Anal. 10 (1973); Kaufman, BIT 15 (1975).
    """
    columns, tangents = _seen(parameters, data)
    return _linearised(parameters, columns, tangents, data, load)


def fit_gaussian(parameters: Tensor, data: Measurement) -> Fit:
    """Return `fit` with Gaussian symbols of about the power that free ones have there."""
    columns, tangents = _seen(parameters, data)
    free = _linearised(parameters, columns, tangents, data, None)
    return _linearised(parameters, columns, tangents, data, free.likelier_load)


def _seen(parameters: Tensor, data: Measurement) -> tuple[Tensor, Tensor]:
    K = parameters.shape[1]
    a, slopes = with_slopes(parameters, data.cfg.array)
    seen = data.seen(torch.cat([a, slopes.flatten(1, 2)], 1).mT)
    # Strided columns make batched products of this size several times slower.
    return seen[..., :K].contiguous(), seen[..., K:]


def _linearised(parameters: Tensor, columns: Tensor, tangents: Tensor, data: Measurement, load: Tensor | None) -> Fit:
    n, K = data.rows, parameters.shape[1]
    weight, rss, whitener, symbols, residual = _projected(columns, data, load)
    D = (tangents * symbols.repeat_interleave(3, -1)[:, :, None]).flatten(1, 2)
    across = whitener @ (columns.mH @ tangents)
    inside = (across * symbols.repeat_interleave(3, -1)[:, :, None]).flatten(1, 2)
    curvature = _real_inner(D, D) - _real_inner(inside, inside)
    # The symbols are the best ones, so the slope is that at fixed symbols.
    slope = _real_inner(D, residual.flatten(1)[..., None])[..., 0]
    if load is not None:
        # −½ ∂ log det (B_lᴴ B_l + load) = −Re tr((B_lᴴ B_l + load)⁻¹ B_lᴴ ∂B_l).
        spread = (whitener.conj()[..., None] * across.unflatten(-1, (K, 3))).real.sum((1, 2))
        slope = slope - (rss / n)[:, None] * spread.flatten(1)
    return Fit(
        parameters, _cost(rss, whitener, None if load is None else weight, n), rss, curvature, slope, columns,
        whitener, symbols, residual, weight.expand(len(rss), K), load is None,
    )  # fmt: skip


def _real_inner(a: Tensor, b: Tensor) -> Tensor:
    """Return Re aᴴb without a conjugate in memory, which costs as much as the product."""
    a, b = (torch.view_as_real(z).flatten(-2) for z in (a, b))
    both = a.mT @ b
    return both[..., ::2, ::2] + both[..., 1::2, 1::2]


def _cost(rss: Tensor, whitener: Tensor, load: Tensor | None, n: int) -> Tensor:
    cost = n * torch.log(rss.clamp_min(torch.finfo(rss.dtype).tiny) / n)
    if load is None:
        return cost
    pivots = torch.diagonal(whitener, dim1=-2, dim2=-1).real
    return cost - (2 * pivots.log() + load.log()[:, None]).sum((1, 2))


def cost_at(parameters: Tensor, data: Measurement, like: Fit) -> Tensor:
    """Return the cost of other positions of the sources, `B x K x 3` real, with the load of a fit, `B` real."""
    azimuth, elevation, inverse = parameters.unbind(-1)
    columns = data.seen(steering(data.cfg.array, azimuth, elevation, 1 / inverse).mT)
    weight, rss, whitener, _, _ = _projected(columns, data, like.given_load(data))
    return _cost(rss, whitener, None if like.free else weight, data.rows)


def _projected(
    columns: Tensor, data: Measurement, load: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return load, weighted RSS, whitener, symbols and residual."""
    _, _, M, K = columns.shape
    size = power(columns).sum((2, 3)) / K
    weight = data.cfg.estimate.mle_ridge + (size.new_zeros(1, K) if load is None else load.expand(-1, K))
    rounding = 8 * torch.finfo(size.dtype).eps * M * size
    whitener, symbols, residual = solved(columns, data.y, rounding[..., None] + weight[:, None])
    rss = power(residual).sum((1, 2)) + (weight[:, None] * power(symbols)).sum((1, 2))
    return weight, rss, whitener, symbols, residual


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
        value = value.index_put((scenes,), _projected(columns, part)[1])
    return value


def put(into: Fit, places: Tensor, part: Fit) -> Fit:
    """Return `into` with some of its scenes, in order, replaced."""
    if len(places) == len(into.rss):
        return part
    changed = {name: value.index_copy(0, places, part.tensors[name]) for name, value in into.tensors.items()}
    return Fit(**changed, free=into.free)
