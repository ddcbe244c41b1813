"""Where one more source would lower the objective most: summits on the grid, then a few places refined."""

from __future__ import annotations

import torch
from torch import Tensor

from ris_verified.array.steering import steering
from ris_verified.estimate.beside import Beside
from ris_verified.estimate.field import HIDDEN, Field, first_gain, gain
from ris_verified.estimate.measurement import Measurement, power
from ris_verified.estimate.parameters import clamped, remoteness, with_slopes

DAMPING = 3e-2
# The first source's gain on the grid is rough: so many times more summits are looked at exactly.
SURE = 6


def summits(volume: Tensor, count: int) -> Tensor:
    """Return which points of `B x R x V x H` are the highest local maxima, `B x count` int64."""
    local = torch.nn.functional.max_pool3d(volume[:, None], 3, stride=1, padding=1)[:, 0]
    heights = torch.where(volume == local, volume, -torch.inf).flatten(1)
    return heights.topk(min(count, heights.shape[1])).indices


def _seen_at(places: Tensor, known: Beside | None, data: Measurement) -> tuple[Tensor, Tensor, Tensor]:
    """Look at `B x T x 3` places a through b = Φ_l a.

    Returns:
        bᴴ r, `B x L x T` complex; σ² bᴴ R_l⁻¹ b, `B x L x T` real; qᵀ b, `B x L x K x T` complex.
    """
    azimuth, elevation, inverse = places.unbind(-1)
    b = data.seen(steering(data.cfg.array, azimuth, elevation, 1 / inverse).mT)
    energy, residual, inside = power(b).sum(2), data.y, b[:, :, :0]
    if known is not None:
        residual, inside = known.residual, known.basis.conj() @ b
        floor = HIDDEN * energy.mean((1, 2), keepdim=True)
        energy = torch.maximum(energy - power(inside).sum(2), floor)
    return (residual.conj()[:, :, None] @ b)[:, :, 0].conj(), energy, inside


def _gains(places: Tensor, known: Beside | None, data: Measurement) -> Tensor:
    """Return the gain in log-likelihood by a source at each of `B x T x 3` places, `B x T` real."""
    hit, energy, _ = _seen_at(places, known, data)
    return _gain(power(hit), energy, known, data)


def _gain(hits: Tensor, energy: Tensor, known: Beside | None, data: Measurement) -> Tensor:
    if known is not None:
        return known.gain(hits, energy)
    # Beside nothing noise is what one source leaves.
    left = 1 - (hits / energy).sum(1) / data.energy[:, None]
    return -data.rows * left.clamp_min(torch.finfo(left.dtype).eps).log()


def _far(places: Tensor, known: Beside | None, data: Measurement) -> Tensor:
    """Return what a place is worth for being far, `B x ...` real."""
    worth = remoteness(places, data.cfg)
    return worth if known is None else known.trust.view(-1, *[1] * (worth.ndim - 1)) * worth


def _exchanges(places: Tensor, known: Beside, data: Measurement) -> Tensor:
    """Return the gain in log-likelihood where a place takes the stead of a source.

    Args:
        places: `B x T x 3` real, parameters.
        known: what the sources leave.
        data: the measurements.

    Returns:
        `B x K x T` real: the gain of the place beside all sources, less the loss of the source among the K + 1.
    """
    hit, energy, inside = _seen_at(places, known, data)
    loaded = energy + known.load[:, None, None]
    share = known.whitener.mH @ inside
    symbols = known.symbols[..., None] - share * (hit / loaded)[:, :, None]
    spread = power(known.whitener).sum(-2)[..., None] + power(share) / loaded[:, :, None]
    return known.gain(power(hit), energy)[:, None] - known.loss(symbols, spread).sum(1)


def _stepped(places: Tensor, known: Beside | None, data: Measurement) -> tuple[Tensor, Tensor]:
    """Return each place after one Gauss–Newton step of its own, `B x T x 3` real, and the gains before, `B x T`."""
    T = places.shape[1]
    a, slopes = with_slopes(places, data.cfg.array)
    v = data.seen(torch.cat([a[:, :, None], slopes], 2).flatten(1, 2).mT)
    gram, residual = v.mH @ v, data.y if known is None else known.residual
    if known is not None:
        inside = known.basis.conj() @ v
        gram = gram - inside.mH @ inside
    gram = torch.diagonal(gram.unflatten(3, (T, 4)).unflatten(2, (T, 4)), dim1=2, dim2=4)
    hit = (residual.conj()[:, :, None] @ v)[:, :, 0].unflatten(-1, (T, 4)).conj().mT
    energy = gram[:, :, 0, 0].real
    energy = torch.maximum(energy, HIDDEN * energy.mean((1, 2), keepdim=True))
    symbols = hit[:, :, 0] / energy
    across, along = gram[:, :, 1:, 1:], gram[:, :, 1:, 0]
    across = across - along[:, :, :, None] * (along.conj() / energy[:, :, None])[:, :, None]
    curvature = (power(symbols)[:, :, None, None] * across.real).sum(1).permute(0, 3, 1, 2)
    slope = (symbols.conj()[:, :, None] * (hit[:, :, 1:] - along * symbols[:, :, None])).real.sum(1).mT
    diagonal = torch.diagonal(curvature, dim1=-2, dim2=-1)
    lift = DAMPING * diagonal + torch.finfo(diagonal.dtype).eps * diagonal.amax(-1, keepdim=True)
    stepped = clamped(places + torch.linalg.solve(curvature + torch.diag_embed(lift), slope), data.cfg)
    return stepped, _gain(power(hit[:, :, 0]), energy, known, data)


def _promising(known: Beside, data: Measurement, field: Field) -> tuple[Tensor, Tensor, Field]:
    """Return the most promising places, off the grid, their gains, `B x T x 3` and `B x T` real, and what is left."""
    volume, left = gain(known, data, field)
    scores = volume + _far(field.grid.places.view(1, *field.grid.shape, 3), known, data)
    places = field.grid.places[summits(scores, data.cfg.estimate.search_summits)]
    return *refined(places, known, data), left


def refined(places: Tensor, known: Beside | None, data: Measurement) -> tuple[Tensor, Tensor]:
    """Take one step from each place, where that raises its gain in log-likelihood.

    Args:
        places: `B x T x 3` real, parameters.
        known: what the sources that are there leave; None is none.
        data: the measurements.

    Returns:
        Places and their gains, `B x T x 3` and `B x T` real.
    """
    stepped, before = _stepped(places, known, data)
    after = _gains(stepped, known, data)
    return torch.where((after > before)[..., None], stepped, places), torch.maximum(before, after)


def first_source(data: Measurement) -> Tensor:
    """Return the place where one source explains most, `B x 3` real."""
    count = data.cfg.estimate.search_summits
    grid, volume = first_gain(data)
    places = grid.places[summits(volume, SURE * count)]
    best = (_gains(places, None, data) + _far(places, None, data)).topk(min(count, places.shape[1])).indices
    return _best(*refined(places.gather(1, best[..., None].expand(-1, -1, 3)), None, data), None, data)


def strongest(known: Beside, data: Measurement, field: Field) -> tuple[Tensor, Field]:
    """Return the place where one more source raises the likelihood most, and what the known ones leave of the field.

    Args:
        known: what the sources that are there leave.
        data: the measurements.
        field: from `see` or from here.

    Returns:
        `B x 3` real, and a `Field`.
    """
    places, gains, left = _promising(known, data, field)
    return _best(places, gains, known, data), left


def _best(places: Tensor, gains: Tensor, known: Beside | None, data: Measurement) -> Tensor:
    best = (gains + _far(places, known, data)).argmax(-1)
    return places[torch.arange(len(places), device=places.device), best]


def best_exchanges(now: Tensor, known: Beside, data: Measurement, field: Field, count: int) -> tuple[Tensor, Tensor]:
    """Return the sources with the exchanges that promise most, and the gains in log-likelihood before refining.

    Args:
        now: `B x K x 3` real, the sources that are there.
        known: what they leave.
        data: the measurements.
        field: from `see`.
        count: how many exchanges.

    Returns:
        `J x B x K x 3` real and `J x B` real, the best first.
    """
    places, _, _ = _promising(known, data, field)
    gains = _exchanges(places, known, data)
    gains = gains + _far(places, known, data)[:, None] - _far(now, known, data)[..., None]
    best, at = gains.flatten(1).topk(min(count, places.shape[1]))
    rows, each = torch.arange(len(at), device=at.device)[:, None], torch.arange(at.shape[1], device=at.device)
    changed = now[:, None].repeat(1, at.shape[1], 1, 1)
    changed[rows, each, at // gains.shape[2]] = places[rows, at % gains.shape[2]]
    return changed.transpose(0, 1), best.T
