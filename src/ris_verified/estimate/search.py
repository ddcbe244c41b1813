"""Greedy matched-field search with cyclic re-seeding; it needs no training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ris_verified.config import Config
from ris_verified.estimate.bound import measured
from ris_verified.estimate.grid import search_grid
from ris_verified.estimate.projection import Measurement, columns, descend, to_peaks
from ris_verified.estimate.result import Peaks

REFINE = 6
CHUNK = 16


@dataclass(frozen=True)
class Nested:
    """Greedy fits with 1 … K_MAX sources.

    Args:
        parameters: `K_MAX x B x K_MAX x 3` real; entry k − 1 holds k sources, NaN beyond.
        residual: `K_MAX x B` real, RSS of each.
    """

    parameters: Tensor
    residual: Tensor


@dataclass(frozen=True)
class _Seen:
    # The grid as the measurement sees it, Φ_l a_g, and its energy, kept for the whole search.
    grid: Tensor
    atoms: Tensor
    energy: Tensor


def _seen(data: Measurement) -> _Seen:
    grid, atoms = search_grid(data.cfg, torch.float32, data.y.device)
    seen = measured(data.H_full, data.C, atoms.T.expand(len(data.y), -1, -1), data.joint)
    return _Seen(grid, seen, _power(seen).sum(2))


def _power(z: Tensor) -> Tensor:
    # |z|² without the square root that abs() takes.
    return torch.view_as_real(z).square().sum(-1)


def _strongest(parameters: Tensor, data: Measurement, seen: _Seen) -> Tensor:
    """Return the grid point that lowers the objective most beside the sources already there, `B x 3`.

    gain_g = Σ_l |(Φ_l a_g)ᴴ P⊥ y_l|²/‖P⊥ Φ_l a_g‖².
    """
    B_l, present = columns(parameters, data)
    # Orthonormal columns; an absent source's zero column must not become a direction.
    Q = torch.linalg.qr(B_l)[0] * present[:, None, None]
    rest = data.y - (Q @ (Q.mH @ data.y[..., None]))[..., 0]
    hit = _power((rest.conj()[:, :, None] @ seen.atoms)[:, :, 0])
    left = seen.energy - _power(Q.mH @ seen.atoms).sum(2)
    floor = torch.finfo(left.dtype).eps * seen.atoms.shape[2]
    gain = (hit / left.clamp_min(floor * seen.energy.mean())).sum(1)
    return seen.grid[gain.argmax(-1)]


def _place(parameters: Tensor, slot: int, source: Tensor) -> Tensor:
    # QR wants present columns first, so a source is placed into the first free slot or in its own.
    changed = parameters.clone()
    changed[:, slot] = source
    return changed


def _greedy(data: Measurement, seen: _Seen, most: int) -> Nested:
    parameters = data.y.real.new_full((len(data.y), data.cfg.scene.sources_max, 3), torch.nan)
    fits, residuals = [], []
    for k in range(most):
        parameters = _place(parameters, k, _strongest(parameters, data, seen))
        parameters, residual = descend(parameters, data, REFINE)
        if k:
            parameters, residual = _reseed(parameters, residual, data, seen)
        fits.append(parameters)
        residuals.append(residual)
    return Nested(torch.stack(fits), torch.stack(residuals))


def _reseed(parameters: Tensor, value: Tensor, data: Measurement, seen: _Seen) -> tuple[Tensor, Tensor]:
    """Take each source away in turn, search its place anew and keep what lowers the objective."""
    for _ in range(data.cfg.estimate.mle_sweeps):
        before = value
        for k in range(parameters.shape[1]):
            active = torch.isfinite(parameters[:, k]).all(-1)
            if not bool(active.any()):
                continue
            without = _place(parameters, k, parameters.new_full((len(parameters), 3), torch.nan))
            # Absent columns go last for the QR factorisation.
            order = torch.argsort(torch.isnan(without[..., 0]).int(), dim=1, stable=True)
            packed = without.gather(1, order[..., None].expand(-1, -1, 3))
            trial = _place(parameters, k, _strongest(packed, data, seen))
            trial, new = descend(torch.where(active[:, None, None], trial, parameters), data, REFINE)
            better = active & (new < value)
            parameters = torch.where(better[:, None, None], trial, parameters)
            value = torch.where(better, new, value)
        if not bool((value < before * (1 - 1e-3)).any()):
            break
    return parameters, value


def nested_search(y: Tensor, H_full: Tensor, C: Tensor, cfg: Config) -> Nested:
    """Return greedy fits with 1, 2, … sources; after each addition all are refined and re-seeded.

    The search runs in single precision; what it finds is only a start.

    Args:
        y: `B x L x M` complex.
        H_full: `B x M x N` complex.
        C: `B x L x N` complex.
        cfg: reads `estimate.search_*`, `estimate.mle_sweeps`, `scene` and `array`.

    Returns:
        A `Nested`.
    """
    whole = _single(y, H_full, C, cfg)
    parts = []
    for first in range(0, len(y), CHUNK):
        data = whole.only(slice(first, first + CHUNK))
        parts.append(_greedy(data, _seen(data), cfg.scene.sources_max))
    return Nested(torch.cat([p.parameters for p in parts], 1), torch.cat([p.residual for p in parts], 1))


def _single(y: Tensor, H_full: Tensor, C: Tensor, cfg: Config) -> Measurement:
    return Measurement.of(y.to(torch.complex64), H_full.to(torch.complex64), C.to(torch.complex64), cfg)


def greedy_search(y: Tensor, H_full: Tensor, C: Tensor, K: Tensor, cfg: Config) -> Peaks:
    """Find K sources by adding the strongest matched field to what is there, then re-seeding each.

    Args:
        y: `B x L x M` complex.
        H_full: `B x M x N` complex.
        C: `B x L x N` complex.
        K: `B` int64.
        cfg: reads `estimate`, `scene` and `array`.

    Returns:
        `Peaks`, NaN beyond K.

    Source: Ziskind and Wax, "Maximum likelihood localization of multiple sources by alternating
    projection", IEEE Trans. ASSP 36 (1988).
    """
    whole = _single(y, H_full, C, cfg)
    found = whole.y.real.new_full((len(y), cfg.scene.sources_max, 3), torch.nan)
    for k in K.unique().tolist():
        for chosen in torch.nonzero(k == K)[:, 0].split(CHUNK):
            data = whole.only(chosen)
            seen = _seen(data)
            nested = _greedy(data, seen, k)
            found[chosen] = nested.parameters[-1]
    return to_peaks(found.to(y.real.dtype))
