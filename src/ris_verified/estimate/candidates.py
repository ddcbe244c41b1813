"""Where one more source would lower the objective most: summits on the grid, then a few places refined."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ris_verified.estimate.beside import Beside
from ris_verified.estimate.field import HIDDEN, Field, first_gain, gain
from ris_verified.estimate.measurement import Measurement, power
from ris_verified.estimate.parameters import clamped, remoteness, with_slopes
from ris_verified.estimate.projection import columns_at

DAMPING = 3e-2
# The first source's gain on the grid is rough: so many times more summits are looked at exactly.
SURE = 6


def summits(volume: Tensor, count: int) -> Tensor:
    """Return which points of `B x R x V x H` are the highest local maxima, `B x count` int64."""
    local = volume
    for axis in (1, 2, 3):
        # Pooling three axes at once looks at 27 points instead of nine.
        wide = torch.nn.functional.pad(local, [0, 0] * (3 - axis) + [1, 1], value=-torch.inf)
        ahead, behind = (wide.narrow(axis, first, volume.shape[axis]) for first in (0, 2))
        local = torch.maximum(local, torch.maximum(ahead, behind))
    heights = torch.where(volume == local, volume, -torch.inf).flatten(1)
    return heights.topk(min(count, heights.shape[1])).indices


class Look(NamedTuple):
    """What the measurements show of T places a through b = Φ_l a.

    Args:
        hit: `B x L x T` complex, bᴴ r.
        energy: `B x L x T` real, σ² bᴴ R_l⁻¹ b.
        inside: `B x L x K x T` complex, qᵀ b.
    """

    hit: Tensor
    energy: Tensor
    inside: Tensor

    def where(self, chosen: Tensor, other: Look) -> Look:
        """Return this look at the chosen of `B x T` places and the other one at the rest."""
        pairs = zip(self, other, strict=True)
        return Look(*(torch.where(chosen.view(len(chosen), *[1] * (a.ndim - 2), -1), a, b) for a, b in pairs))


def _look(places: Tensor, known: Beside | None, data: Measurement) -> Look:
    """Look at `B x T x 3` places."""
    b = columns_at(places, data)
    energy, residual, inside = power(b).sum(2), data.y, b[:, :, :0]
    if known is not None:
        residual, inside = known.residual, known.basis.conj() @ b
        floor = HIDDEN * energy.mean((1, 2), keepdim=True)
        energy = torch.maximum(energy - power(inside).sum(2), floor)
    return Look((residual.conj()[:, :, None] @ b)[:, :, 0].conj(), energy, inside)


def _gains(seen: Look, known: Beside | None, data: Measurement) -> Tensor:
    """Return the gain in log-likelihood by a source at each of T places, `B x T` real."""
    if known is not None:
        return known.gain(power(seen.hit), seen.energy)
    # Beside nothing noise is what one source leaves.
    left = 1 - (power(seen.hit) / seen.energy).sum(1) / data.energy[:, None]
    return -data.rows * left.clamp_min(torch.finfo(left.dtype).eps).log()


def _far(places: Tensor, known: Beside | None, data: Measurement) -> Tensor:
    """Return what a place is worth for being far or near, `B x ...` real."""
    worth = remoteness(places, data.cfg)
    return worth if known is None else known.far_weight.view(-1, *[1] * (worth.ndim - 1)) * worth


def _exchanges(seen: Look, known: Beside) -> Tensor:
    """Return the gain in log-likelihood where a place takes the stead of a source.

    Args:
        seen: of the places.
        known: what the sources leave.

    Returns:
        `B x K x T` real: the gain of the place beside all sources, less the loss of the source among the K + 1.
    """
    hit, energy, inside = seen
    loaded = energy + known.load[:, None, None]
    share = known.whitener.mH @ inside
    symbols = known.symbols[..., None] - share * (hit / loaded)[:, :, None]
    spread = power(known.whitener).sum(-2)[..., None] + power(share) / loaded[:, :, None]
    return known.gain(power(hit), energy)[:, None] - known.loss(symbols, spread).sum(1)


def _own_gram(v: Tensor, count: int) -> Tensor:
    """Return vᴴv of each of so many groups of columns, `... x M x TP` → `... x P x P x T`."""
    gram = v.mH @ v
    return torch.diagonal(gram.unflatten(-1, (count, -1)).unflatten(-3, (count, -1)), dim1=-4, dim2=-2)


def _stepped(places: Tensor, known: Beside | None, data: Measurement) -> tuple[Tensor, Look]:
    """Return each place after one Gauss–Newton step of its own, `B x T x 3` real, and the look before."""
    T = places.shape[1]
    a, slopes = with_slopes(places, data.cfg.array)
    v = data.seen(torch.cat([a[:, :, None], slopes], 2).flatten(1, 2))
    gram, residual, inside = _own_gram(v, T), data.y, v[:, :, :0]
    if known is not None:
        residual, inside = known.residual, known.basis.conj() @ v
        gram = gram - _own_gram(inside, T)
    hit = (residual.conj()[:, :, None] @ v)[:, :, 0].unflatten(-1, (T, 4)).conj().mT
    energy = gram[:, :, 0, 0].real
    energy = torch.maximum(energy, HIDDEN * energy.mean((1, 2), keepdim=True))
    symbols = hit[:, :, 0] / energy
    across, along = gram[:, :, 1:, 1:], gram[:, :, 1:, 0]
    across = across - along[:, :, :, None] * (along.conj() / energy[:, :, None])[:, :, None]
    curvature = (power(symbols)[:, :, None, None] * across.real).sum(1).permute(0, 3, 1, 2)
    slope = (symbols.conj()[:, :, None] * (hit[:, :, 1:] - along * symbols[:, :, None])).real.sum(1).mT
    diagonal = torch.diagonal(curvature, dim1=-2, dim2=-1)
    floor = torch.finfo(diagonal.dtype).eps * diagonal.amax(-1, keepdim=True)
    # One element alone sees no direction at all.
    lift = DAMPING * diagonal + floor.clamp_min(torch.finfo(diagonal.dtype).tiny)
    stepped = clamped(places + torch.linalg.solve(curvature + torch.diag_embed(lift), slope), data.cfg)
    return stepped, Look(hit[:, :, 0], energy, inside[..., ::4])


def _promising(known: Beside, data: Measurement, field: Field) -> tuple[Tensor, Tensor, Look, Field]:
    """Return the most promising places, off the grid, with what `_refined` says of them, and what is left."""
    volume, left = gain(known, data, field)
    scores = volume + _far(field.grid.places.view(1, *field.grid.shape, 3), known, data)
    places = field.grid.places[summits(scores, data.cfg.estimate.search_summits)]
    return *_refined(places, known, data), left


def refined(places: Tensor, known: Beside | None, data: Measurement) -> tuple[Tensor, Tensor]:
    """Take one step from each place, where gain in log-likelihood and worth of being far together rise.

    Args:
        places: `B x T x 3` real, parameters.
        known: what the sources that are there leave; None is none.
        data: the measurements.

    Returns:
        Places and their gains, `B x T x 3` and `B x T` real.
    """
    return _refined(places, known, data)[:2]


def _refined(places: Tensor, known: Beside | None, data: Measurement) -> tuple[Tensor, Tensor, Look]:
    """Return what `refined` does, and the look at these places."""
    stepped, before = _stepped(places, known, data)
    after = _look(stepped, known, data)
    now, then = _gains(before, known, data), _gains(after, known, data)
    better = then + _far(stepped, known, data) > now + _far(places, known, data)
    return torch.where(better[..., None], stepped, places), torch.where(better, then, now), after.where(better, before)


def first_source(data: Measurement) -> Tensor:
    """Return the place where one source explains most, `B x 3` real."""
    count = data.cfg.estimate.search_summits
    grid, volume = first_gain(data)
    places = grid.places[summits(volume, SURE * count)]
    exact = _gains(_look(places, None, data), None, data) + _far(places, None, data)
    best = exact.topk(min(count, places.shape[1])).indices
    places, gains = refined(_picked(places, best), None, data)
    return _ranked(places, gains, None, data)[0][:, 0]


def ranked_places(known: Beside, data: Measurement, field: Field) -> tuple[Tensor, Tensor]:
    """Return the places where one more source promises most, and what it promises, the best first.

    Args:
        known: what the sources that are there leave.
        data: the measurements.
        field: as for `gain`.

    Returns:
        `B x T x 3` real, and the gains in log-likelihood with the worth of being far, `B x T` real.
    """
    places, gains, _, _ = _promising(known, data, field)
    return _ranked(places, gains, known, data)


def _ranked(places: Tensor, gains: Tensor, known: Beside | None, data: Measurement) -> tuple[Tensor, Tensor]:
    worth, rank = (gains + _far(places, known, data)).sort(dim=-1, descending=True, stable=True)
    return _picked(places, rank), worth


def _picked(places: Tensor, which: Tensor) -> Tensor:
    return places.gather(1, which[..., None].expand(-1, -1, 3))


def best_exchanges(
    now: Tensor, known: Beside, data: Measurement, field: Field, count: int
) -> tuple[Tensor, Tensor, Field]:
    """Return the sources with the exchanges that promise most, the gains before refining, and what is left.

    Args:
        now: `B x K x 3` real, the sources that are there.
        known: what they leave.
        data: the measurements.
        field: as for `gain`.
        count: how many exchanges.

    Returns:
        `J x B x K x 3` real and gains in log-likelihood `J x B` real, the best first; a `Field`.
    """
    places, _, seen, left = _promising(known, data, field)
    gains = _exchanges(seen, known)
    gains = gains + _far(places, known, data)[:, None] - _far(now, known, data)[..., None]
    best, at = gains.flatten(1).topk(min(count, places.shape[1]))
    rows, each = torch.arange(len(at), device=at.device)[:, None], torch.arange(at.shape[1], device=at.device)
    changed = now[:, None].repeat(1, at.shape[1], 1, 1)
    changed[rows, each, at // gains.shape[2]] = places[rows, at % gains.shape[2]]
    return changed.transpose(0, 1), best.T, left
