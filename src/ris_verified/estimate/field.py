"""Over the search grid: by how much one more source would lower the objective."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ris_verified.array.folded import FoldedGrid, unfolded
from ris_verified.estimate.beside import Beside
from ris_verified.estimate.grid import search_grid
from ris_verified.estimate.measurement import Measurement

# Directions of the channel whose share of ‖Φ_l a‖² is followed over the grid; the others count with their mean.
FOLLOWED = 2
# For the first source the grid is finer by so many angles: nothing later makes up for one on a side lobe.
FINER = 4
# A place whose field lies within the span of the sources already there has no gain worth a number.
HIDDEN = 1e-3


@dataclass(frozen=True)
class Field:
    """How strongly the measurements see the places of a grid.

    Args:
        grid: the grid.
        energy: `B x L x G` real, about ‖Φ_l a_g‖², in the order of `unfolded`: the strongest directions of the channel
            are followed, the rest is its mean.
    """

    grid: FoldedGrid
    energy: Tensor

    def only(self, chosen: Tensor) -> Field:
        """Return some of the scenes."""
        return Field(self.grid, self.energy[chosen])


def see(data: Measurement, grid: FoldedGrid | None = None) -> Field:
    """Return a grid, that of `estimate.search_*` where none is given, as the measurements see it."""
    grid = search_grid(data.cfg, data.y.real.dtype, data.y.device) if grid is None else grid
    strong, rest = _directions(data)
    energy = grid.places.new_empty(len(strong), data.y.shape[1], len(grid.places))
    for powers, mean, out in zip(_powers(strong, grid), rest, energy, strict=True):
        torch.add(_energy(powers, data), mean, out=_quarters(out))
    return Field(grid, energy)


def gain(known: Beside, data: Measurement, field: Field) -> Tensor:
    """Return about the gain in log-likelihood by one more source on the grid, `B x R x V x H` real."""
    w = torch.cat([known.residual[:, :, None], known.basis], 2)
    back = w.conj() @ data.Phi.unflatten(1, data.y.shape[1:])
    hits, left = torch.empty_like(field.energy), torch.empty_like(field.energy)
    rows = _powers(back.flatten(1, 2), field.grid)
    for powers, energy, hit, rest in zip(rows, field.energy, hits, left, strict=True):
        each = powers.unflatten(1, w.shape[1:3])
        _quarters(hit).copy_(each[:, :, 0])
        torch.sub(_quarters(energy), each[:, :, 1:].sum(2), out=_quarters(rest))
        rest.clamp_min_(HIDDEN * energy.mean())
    return field.grid.volume(known.gain(hits, left).unflatten(1, (4, -1)))


def first_gain(data: Measurement, grid: FoldedGrid | None = None) -> tuple[FoldedGrid, Tensor]:
    """Return a grid and about Σ_l |(Φ_l a_g)ᴴ y_l|²/‖Φ_l a_g‖² with no source there, `B x R x V x H` real.

    Where no grid is given it is that of the search, finer.
    """
    grid = search_grid(data.cfg, data.y.real.dtype, data.y.device, FINER) if grid is None else grid
    back = (data.y.conj()[:, :, None] @ data.Phi.unflatten(1, data.y.shape[1:]))[:, :, 0]
    strong, rest = _directions(data)
    L, gains = back.shape[1], grid.places.new_empty(len(back), 4, len(grid.places) // 4)
    for powers, mean, out in zip(_powers(torch.cat([back, strong], 1), grid), rest, gains, strict=True):
        torch.sum(powers[:, :L] / (_energy(powers[:, L:], data) + mean), 1, out=out)
    return grid, grid.volume(gains)


def _directions(data: Measurement) -> tuple[Tensor, Tensor]:
    """Return Φ_l in the strongest directions, `B x (L·F) x N` complex, and the mean of ‖Φ_l a‖² in the others, `B`.

    Where symbols are constant, the mean is that of all snapshots together.
    """
    s = data.cfg.scene
    Phi, count = data.Phi.unflatten(1, (s.snapshots, s.antennas)), min(FOLLOWED, s.antennas)
    # Codes have unit modulus, so all Φ_l share the left singular vectors of H.
    values, left = torch.linalg.eigh(Phi[:, 0] @ Phi[:, 0].mH)
    rest = values[:, :-count].sum(1).clamp_min(0) * (s.snapshots // data.y.shape[1])
    return (left[:, None, :, -count:].mH @ Phi).flatten(1, 2), rest


def _powers(rows: Tensor, grid: FoldedGrid) -> Iterator[Tensor]:
    """Yield |row·a_g|² of each scene, `B x R x N` complex → B times `4 x R x G/4` real, the same memory each time."""
    # Fresh memory costs as much as the product, and one scene stays in the cache.
    room, flat = grid.room(rows.shape[1]), grid.room(rows.shape[1])
    for each in rows:
        yield unfolded(grid.products(each, room), flat).square_().sum(2)


def _energy(powers: Tensor, data: Measurement) -> Tensor:
    """Add up the directions of each of the snapshots that symbols tell apart."""
    energy: Tensor = powers.unflatten(1, (data.y.shape[1], -1)).sum(2)
    return energy


def _quarters(values: Tensor) -> Tensor:
    """Return a view `4 x L x G/4` of `L x G`."""
    quarters: Tensor = values.unflatten(1, (4, -1)).transpose(0, 1)
    return quarters
