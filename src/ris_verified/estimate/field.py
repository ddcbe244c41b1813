"""Over the search grid: by how much one more source would lower the objective."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ris_verified.array.folded import FoldedGrid, unfolded
from ris_verified.estimate.beside import Beside
from ris_verified.estimate.grid import search_grid
from ris_verified.estimate.measurement import Measurement

# Directions of the channel whose share of ‖Φ_l a‖² is followed over the grid for the first source; the others
# count with their mean.
FOLLOWED = 2
# And its grid is finer by so many angles: nothing later makes up for a first source on a side lobe.
FINER = 4
# A place whose field lies within the span of the sources already there has no gain worth a number.
HIDDEN = 1e-3


@dataclass(frozen=True)
class Field:
    """The grid as the measurements see it, kept for a whole search; one scene at a time stays in the cache.

    Args:
        grid: the grid.
        seen: `S x L x 2M x G` real, Φ_l a_g in the order of `unfolded`, Re and Im of each antenna in turn.
        energy: `S x L x G` real, ‖Φ_l a_g‖².
        scenes: which of them are meant, `B` of S.
    """

    grid: FoldedGrid
    seen: Tensor
    energy: Tensor
    scenes: Tensor

    def only(self, chosen: Tensor) -> Field:
        """Return some of the scenes, without a copy."""
        return Field(self.grid, self.seen, self.energy, self.scenes[chosen])


def see(data: Measurement, grid: FoldedGrid | None = None) -> Field:
    """Return a grid, that of `estimate.search_*` where none is given, as the measurements see it."""
    B, L, M = data.y.shape
    grid = search_grid(data.cfg, data.y.real.dtype, data.y.device) if grid is None else grid
    places = len(grid.places)
    seen, energy = grid.places.new_empty(B, L, 2 * M, places), grid.places.new_empty(B, L, places)
    # One room for all scenes: fresh memory costs as much as the product.
    parts = grid.room(L * M)
    for Phi, field, size in zip(data.Phi, seen, energy, strict=True):
        unfolded(grid.products(Phi, parts).unflatten(1, (L, M)), field.view(L, M, 2, 4, -1).permute(3, 0, 1, 2, 4))
        torch.sum(field.square(), 1, out=size)
    return Field(grid, seen, energy, torch.arange(B, device=seen.device))


def gain(known: Beside, field: Field) -> Tensor:
    """Return the gain in log-likelihood by one more source on the grid, `B x R x V x H` real."""
    w = torch.cat([known.residual[:, :, None], known.basis], 2)
    # The rows wᴴ that turn Re and Im of the field into Re and Im of the product.
    rows = torch.view_as_real(torch.stack([w, 1j * w], 3)).flatten(4).flatten(2, 3)
    hits = field.grid.places.new_empty(len(rows), *field.energy.shape[1:])
    left = torch.empty_like(hits)
    for row, scene, hit, rest in zip(rows, field.scenes.tolist(), hits, left, strict=True):
        energy, squares = field.energy[scene], torch.bmm(row, field.seen[scene]).square_()
        torch.sum(squares[:, :2], 1, out=hit)
        torch.sub(energy, squares[:, 2:].sum(1), out=rest).clamp_min_(HIDDEN * energy.mean())
    return field.grid.volume(known.gain(hits, left).unflatten(1, (4, -1)))


def first_gain(data: Measurement, grid: FoldedGrid | None = None) -> tuple[FoldedGrid, Tensor]:
    """Return a grid and about Σ_l |(Φ_l a_g)ᴴ y_l|²/‖Φ_l a_g‖² with no source there, `B x R x V x H` real.

    Where no grid is given it is that of the search, finer.

    Back-projection makes the numerator one product a snapshot; of the denominator the strongest directions
    of the channel are followed, the rest is its mean.
    """
    s = data.cfg.scene
    grid = search_grid(data.cfg, data.y.real.dtype, data.y.device, FINER) if grid is None else grid
    back = (data.y.conj()[:, :, None] @ data.Phi.unflatten(1, data.y.shape[1:]))[:, :, 0]
    Phi = data.Phi.unflatten(1, (s.snapshots, s.antennas))
    # Codes have unit modulus, so all Φ_l share the left singular vectors of H.
    values, left = torch.linalg.eigh(Phi[:, 0] @ Phi[:, 0].mH)
    count = min(FOLLOWED, s.antennas)
    strong = (left[:, None, :, -count:].mH @ Phi).flatten(1, 2)
    rest, L = values[:, :-count].sum(1).clamp_min(0), back.shape[1]
    done = grid.places.new_empty(len(back), 4, grid.atoms.shape[2] // 2)
    sought = torch.cat([back, strong], 1)
    parts = grid.room(sought.shape[1])
    for rows, mean, out in zip(sought, rest, done, strict=True):
        hits = unfolded(grid.products(rows, parts)).square_().sum(2)
        energy = hits[:, L:].unflatten(1, (s.snapshots, count)).sum(2) + mean
        torch.sum(hits[:, :L] / (energy if L > 1 else energy.sum(1, keepdim=True)), 1, out=out)
    return grid, grid.volume(done)
