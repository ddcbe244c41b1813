"""Variable projection in the measurement domain: the model at some positions, its symbols solved for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self, TypeVar

import torch
from torch import Tensor

from ris_verified.array.steering import steering
from ris_verified.estimate.measurement import Measurement, power
from ris_verified.estimate.parameters import by_order

# A prior stronger than this over the mean of ‖b_lk‖² says no more than one at the limit, nor one weaker than rounding.
STRONGEST = 1e3


@dataclass(frozen=True)
class Fit:
    """The model at some positions, its symbols solved for.

    Args:
        parameters: `B x K x 3` real, azimuth, elevation, 1/range.
        cost: `B` real, minus the log-likelihood in nats up to a constant: n log(rss/n), and where symbols are Gaussian
            Σ_l log det(I + B_lᴴ B_l/load).
        rss: `B` real, Σ_l min_s ‖y_l − B_l s‖² + Σ_k load_k |s_k|².
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
    columns: Tensor
    whitener: Tensor
    symbols: Tensor
    residual: Tensor
    load: Tensor
    free: bool

    def where(self, chosen: Tensor, other: Self) -> Self:
        """Return this fit for the chosen scenes and the other one for the rest."""

        def pick(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(chosen.view(-1, *[1] * (mine.ndim - 1)), mine, theirs)

        picked = {name: pick(mine, other.tensors[name]) for name, mine in self.tensors.items()}
        return type(self)(**picked, free=self.free)

    def only(self, chosen: Tensor) -> Self:
        """Return some of the scenes."""
        return type(self)(**{name: value[chosen] for name, value in self.tensors.items()}, free=self.free)

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

    @property
    def size(self) -> Tensor:
        """Mean of ‖b_lk‖², `B` real."""
        mean: Tensor = power(self.columns).mean((1, 3)).sum(-1)
        return mean

    def free_rss(self, data: Measurement) -> Tensor:
        """Return Σ_l ‖P⊥(B_l) y_l‖² at these positions, with the Tikhonov term where there is one, `B` real."""
        return self.rss if self.free else fit_columns(self.parameters, self.columns, data, None).rss

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
        size = self.size
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
    """Solve for the symbols at given positions.

    The Gram matrices are loaded by `estimate.mle_ridge`, and by rounding, so that coinciding sources stay solvable.

    Args:
        parameters: `B x K x 3` real, all finite.
        data: the measurements.
        load: `B x K` or `B x 1` real, σ²/p_k of Gaussian symbols, which are integrated out; None leaves them free.

    Returns:
        A `Fit`.

    Source: Golub and Pereyra, SIAM J. Numer. Anal. 10 (1973).
    """
    return fit_columns(parameters, columns_at(parameters, data), data, load)


def columns_at(parameters: Tensor, data: Measurement) -> Tensor:
    """Return the columns Φ_l a of places, `B x P x 3` real → `B x L x M x P` complex."""
    azimuth, elevation, inverse = parameters.unbind(-1)
    return data.seen(steering(data.cfg.array, azimuth, elevation, 1 / inverse))


def fit_columns(parameters: Tensor, columns: Tensor, data: Measurement, load: Tensor | None) -> Fit:
    """Return `fit` where the columns B_l at its positions are known, `B x L x M x K` complex."""
    _, _, M, K = columns.shape
    size = power(columns).sum((2, 3)) / K
    weight = data.cfg.estimate.mle_ridge + (size.new_zeros(1, K) if load is None else load.expand(-1, K))
    rounding = 8 * torch.finfo(size.dtype).eps * M * size
    whitener, symbols, residual = solved(columns, data.y, rounding[..., None] + weight[:, None])
    rss = power(residual).sum((1, 2)) + (weight[:, None] * power(symbols)).sum((1, 2))
    cost = data.rows * torch.log(rss.clamp_min(torch.finfo(rss.dtype).tiny) / data.rows)
    if load is not None:
        pivots = torch.diagonal(whitener, dim1=-2, dim2=-1).real
        cost = cost - (2 * pivots.log() + weight.log()[:, None]).sum((1, 2))
    return Fit(parameters, cost, rss, columns, whitener, symbols, residual, weight.expand(len(rss), K), load is None)


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
        value = value.index_put((scenes,), fit(parameters[scenes[:, None], rows], data.only(scenes)).rss)
    return value


AnyFit = TypeVar("AnyFit", bound=Fit)


def put(into: AnyFit, places: Tensor, part: AnyFit) -> AnyFit:
    """Return `into` with some of its scenes, in order, replaced."""
    if len(places) == len(into.rss):
        return part
    changed = {name: value.index_copy(0, places, part.tensors[name]) for name, value in into.tensors.items()}
    return type(into)(**changed, free=into.free)
