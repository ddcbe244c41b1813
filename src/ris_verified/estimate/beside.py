"""What the measurements still say beside known sources, with and without a prior on the symbols."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ris_verified.estimate.measurement import Measurement, power
from ris_verified.estimate.projection import Fit

# Ratios of noise to symbol power that `deviance_of` tries, over the mean eigenvalue of B_lᴴ B_l.
LOADS = tuple(10 ** (exponent / 3) for exponent in range(-9, 4))
# Ratios of a snapshot's energy to the load that are multiplied before their logarithm is taken; none exceeds 1e9.
FACTORS = 4
# SNR below which sources are lost, how sharply that sets in, and how much a near place counts for more there: a far
# source is known to metres and forgives a near estimate, a near one never a far estimate.
THRESHOLD, SHARPNESS, NEARER = 2.0, 8, 0.4


@dataclass(frozen=True)
class Beside:
    """The residual and the span of known sources.

    With free symbols the sources are projected out. With Gaussian symbols of one power p they are weighed
    against noise: a strong common direction, as the line of sight to the base station makes it, then still
    tells where power comes from, and a source that explains little costs more than it brings.

    Args:
        residual: `B x L x M` complex, σ² R_l⁻¹ y_l, R_l = σ² I + p B_l B_lᴴ; P⊥ y_l where symbols are free.
        basis: `B x L x K x M` complex rows q with R_l⁻¹ = (I − Σ q̄ qᵀ)/σ².
        symbols: `B x L x K` complex.
        whitener: `B x L x K x K` complex, inverse Cholesky factor of B_lᴴ B_l + load.
        noise_variance: `B` real.
        load: `B` real, σ²/p; zero where symbols are free.
        free: whether they are.
        far_weight: `B` real, how much the log-density of places counts: 1, or −NEARER where sources are lost.
    """

    residual: Tensor
    basis: Tensor
    symbols: Tensor
    whitener: Tensor
    noise_variance: Tensor
    load: Tensor
    free: bool
    far_weight: Tensor

    def gain(self, hits: Tensor, energy: Tensor) -> Tensor:
        """Return by how much the log-likelihood grows with one more source b, `B x P` real.

        Args:
            hits: `B x L x P` real, |bᴴ residual|².
            energy: `B x L x P` real, σ² bᴴ R_l⁻¹ b.
        """
        loaded = energy + _along(self.load, energy)
        quadratic: Tensor = (hits / loaded).sum(1) / self.noise_variance[:, None]
        if self.free:
            return quadratic
        # A logarithm of four factors costs as much as one of one.
        parts = (loaded / _along(self.load, loaded)).split(FACTORS, 1)
        return quadratic - torch.stack([part.prod(1).log() for part in parts]).sum(0)

    def loss(self, symbols: Tensor, spread: Tensor) -> Tensor:
        """Return by how much it falls with one source less.

        Args:
            symbols: `B x ...` complex, of the sources.
            spread: `B x ...` real, the diagonal of (B_lᴴ B_l + load)⁻¹.
        """
        noise = _along(self.noise_variance, spread)
        if self.free:
            return power(symbols) / (spread * noise)
        return loss_without(symbols, spread, noise, _along(self.load, spread))


def _along(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def loss_without(symbols: Tensor, spread: Tensor, noise: Tensor, load: Tensor) -> Tensor:
    """Return by how much the log-likelihood falls without each Gaussian symbol, `...` real.

    Args:
        symbols: `...` complex.
        spread: `...` real, the diagonal of (B_lᴴ B_l + load)⁻¹.
        noise, load: real, noise variance and noise over power, or what expands to `...`.
    """
    return power(symbols) / (spread * noise) + torch.log(load * spread)


def beside_nothing(data: Measurement) -> Beside:
    """Return the measurements themselves, where no source is known yet; the density of places counts in full."""
    B, L, M = data.y.shape
    none, nothing = data.y.new_empty(B, L, 0, M), torch.zeros_like(data.energy)
    noise = data.energy / data.rows
    return Beside(data.y, none, none[..., 0], none[..., :0].clone(), noise, nothing, True, torch.ones_like(nothing))


def beside(now: Fit, data: Measurement) -> Beside:
    """Return what a fit leaves, its symbols free or Gaussian as there.

    Source: Stoica and Nehorai, "Performance study of conditional and unconditional direction-of-arrival
    estimation", IEEE Trans. ASSP 38 (1990), the two models.
    """
    lost = 1 / (1 + (snr(now, data) / THRESHOLD) ** SHARPNESS)
    return _beside(now, now.noise_variance, now.load.mean(1), 1 - (1 + NEARER) * lost)


def beside_powers(now: Fit, powers: Tensor, noise: Tensor) -> Beside:
    """Return what is left where each source has a power of its own and a further one is as strong as these.

    The density of places counts in full: what is asked for is the likeliest place, lost or not.

    Args:
        now: a fit loaded by noise/powers.
        powers: `B x K` real.
        noise: `B` real.
    """
    return _beside(now, noise, noise * powers.sum(1) / powers.square().sum(1), torch.ones_like(noise))


def snr(now: Fit, data: Measurement) -> Tensor:
    """Return the ratio of signal to noise that a fit implies, `B` real, more than zero."""
    ratio = data.energy / (data.rows * now.noise_variance.clamp_min(torch.finfo(now.rss.dtype).tiny)) - 1
    return ratio.clamp_min(torch.finfo(ratio.dtype).eps)


def _beside(now: Fit, noise: Tensor, load: Tensor, far_weight: Tensor) -> Beside:
    return Beside(now.residual, now.basis, now.symbols, now.whitener, noise, load, now.free, far_weight)


def deviance_of(B: Tensor, data: Measurement) -> Tensor:
    """Return minus the log-likelihood with Gaussian symbols of one power, least over that power and the noise.

    n log(q/n) + Σ_l log det(I + B_lᴴ B_l/load), q = Σ_l y_lᴴ (I + B_l B_lᴴ/load)⁻¹ y_l.

    Args:
        B: `B x L x M x K` complex, columns B_l.
        data: the measurements.

    Returns:
        `B` real, in nats, up to a constant.
    """
    n = data.rows
    values, axes = torch.linalg.eigh(B.mH @ B)
    values = values.clamp_min(torch.finfo(values.dtype).tiny)
    seen = power((axes.mH @ (B.mH @ data.y[..., None]))[..., 0])
    load = values.new_tensor(LOADS)[:, None, None, None] * values.mean((1, 2))[:, None, None]
    q = data.energy - (seen / (values + load)).sum((2, 3))
    spread = torch.log1p(values / load).sum((2, 3))
    least: Tensor = (n * torch.log(q.clamp_min(torch.finfo(q.dtype).tiny) / n) + spread).amin(0)
    return least
