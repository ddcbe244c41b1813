"""Over the search grid: by how much one more source would lower the objective."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ris_verified.array.folded import FoldedGrid, unfolded
from ris_verified.estimate.beside import Beside
from ris_verified.estimate.grid import search_grid
from ris_verified.estimate.measurement import Measurement, power

# Directions of the channel whose share of ‖Φ_l a‖² is followed over the grid, for the first source and for others; the
# rest counts with its mean.
FIRST, FOLLOWED = 1, 4
# For the first source the grid is finer by so many angles: nothing later makes up for one on a side lobe.
FINER = 4
# Rows of scenes that are multiplied with the grid at once.
TOGETHER = 256
# A place whose field lies within the span of the sources already there has no gain worth a number; where these have
# moved since they were projected out, nor has one that nearly does.
HIDDEN, STALE = 1e-3, 0.2


@dataclass(frozen=True)
class Field:
    """How strongly the measurements see the places of a grid.

    Args:
        grid: the grid.
        energy: `B x L x G` real, about ‖Φ_l a_g‖², in the order of `unfolded`: the strongest directions of the channel
            are followed, the rest is its mean.
        without: how many sources have been projected out of it.
    """

    grid: FoldedGrid
    energy: Tensor
    without: int = 0

    def only(self, chosen: Tensor) -> Field:
        """Return some of the scenes."""
        return Field(self.grid, self.energy[chosen], self.without)


def see(data: Measurement, grid: FoldedGrid | None = None) -> Field:
    """Return a grid, that of `estimate.search_*` where none is given, as the measurements see it."""
    grid = search_grid(data.cfg, data.y.real.dtype, data.y.device) if grid is None else grid
    strong, rest = _directions(data, FOLLOWED)
    energy = grid.places.new_empty(len(strong), data.y.shape[1], len(grid.places))
    for scenes, powers in _powers(strong, grid):
        torch.add(_energy(powers, data), rest[scenes, :, None], out=_quarters(energy[scenes]))
    return Field(grid, energy)


def gain(known: Beside, data: Measurement, field: Field) -> tuple[Tensor, Field]:
    """Return about the gain in log-likelihood by one more source on the grid, and what the known ones leave of a field.

    Args:
        known: what the sources that are there leave.
        data: the measurements.
        field: from `see` or from here; the first `without` sources count as projected out already.

    Returns:
        `B x R x V x H` real, and a `Field`.
    """
    w = torch.cat([known.residual[:, :, None], known.basis[:, :, field.without :]], 2)
    back = data.back(w.conj())
    hits, left = torch.empty_like(field.energy), torch.empty_like(field.energy)
    for scenes, powers in _powers(back.flatten(1, 2), field.grid):
        each = powers.unflatten(2, w.shape[1:3])
        _quarters(hits[scenes]).copy_(each[:, :, :, 0])
        torch.sub(_quarters(field.energy[scenes]), each[:, :, :, 1:].sum(3), out=_quarters(left[scenes]))
    floor = STALE if 0 < field.without == known.basis.shape[2] else HIDDEN
    left = torch.maximum(left, floor * field.energy.mean((1, 2), keepdim=True))
    volume = field.grid.volume(known.gain(hits, left).unflatten(1, (4, -1)))
    return volume, Field(field.grid, left, known.basis.shape[2])


def first_gain(data: Measurement) -> tuple[FoldedGrid, Tensor]:
    """Return a finer grid and about Σ_l |(Φ_l a_g)ᴴ y_l|²/‖Φ_l a_g‖² with no source there, `B x R x V x H` real."""
    grid = search_grid(data.cfg, data.y.real.dtype, data.y.device, FINER)
    back = data.back(data.y.conj()[:, :, None])[:, :, 0]
    strong, rest = _directions(data, FIRST)
    L, gains = back.shape[1], grid.places.new_empty(len(back), 4, len(grid.places) // 4)
    for scenes, powers in _powers(torch.cat([back, strong], 1), grid):
        energy = _energy(powers[:, :, L:], data) + rest[scenes, :, None]
        torch.sum(powers[:, :, :L] / energy, 2, out=gains[scenes].transpose(0, 1))
    return grid, grid.volume(gains)


def _directions(data: Measurement, followed: int) -> tuple[Tensor, Tensor]:
    """Return Φ_l in the F strongest directions of H, `B x (L·F) x N` complex, and the mean of ‖Φ_l a‖² in the others.

    The mean is `B x L` real; `B x 1` of all snapshots together where symbols are constant.
    """
    M = data.H.shape[1]
    count = min(followed, M)
    # Codes turn phases, mostly: all Φ_l nearly share the left singular vectors of H.
    values, left = torch.linalg.eigh(data.H @ data.H.mH)
    codes = power(data.C).mean(2).unflatten(1, (data.y.shape[1], -1)).sum(2)
    rest = values[:, :-count].sum(1).clamp_min(0)[:, None] * codes
    strong = (left[:, :, -count:].mH @ data.H)[:, None] * data.C[:, :, None]
    return strong.flatten(1, 2), rest


def _powers(rows: Tensor, grid: FoldedGrid) -> Iterator[tuple[slice, Tensor]]:
    """Yield |row·a_g|² of some scenes after the other, `B x R x N` complex → `4 x b x R x G/4` real.

    Products are few and large, and what they make stays in the cache; fresh memory would cost as much as they do, so
    it is the same each time.
    """
    together = max(1, TOGETHER // rows.shape[1])
    room, flat = (grid.room(together * rows.shape[1]) for _ in range(2))
    for first in range(0, len(rows), together):
        part = rows[first : first + together]
        count = part.shape[0] * part.shape[1]
        real, imag = unfolded(grid.products(part.flatten(0, 1), room[:, :count]), flat[:, :count]).unbind(2)
        yield slice(first, first + together), real.square().addcmul_(imag, imag).unflatten(1, part.shape[:2])


def _energy(powers: Tensor, data: Measurement) -> Tensor:
    """Add up the directions of each of the snapshots that symbols tell apart, `4 x b x R x P` → `4 x b x L x P`."""
    energy: Tensor = powers.unflatten(2, (data.y.shape[1], -1)).sum(3)
    return energy


def _quarters(values: Tensor) -> Tensor:
    """Return a view `4 x b x L x G/4` of `b x L x G`."""
    quarters: Tensor = values.unflatten(2, (4, -1)).permute(2, 0, 1, 3)
    return quarters
