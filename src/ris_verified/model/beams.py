"""What the measurements say of every place of the dictionary, also beside places that are chosen already."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ris_verified.array.folded import FoldedGrid, unfolded
from ris_verified.array.steering import steering
from ris_verified.config import Config

# Directions of the channel whose share of a place's energy is followed over the dictionary; of the others the mean.
FOLLOWED = 2
# Scenes whose products with the dictionary are held at once: more leave the cache.
TOGETHER = 8


@dataclass(frozen=True)
class Beams:
    """Whitened measurements and the energy that a source at each place would bring to them.

    The channel's directions are brought to equal strength as far as noise of their mean strength allows: with
    H = U S Vᴴ and W = (S² + mean S²)^(−1/2) Uᴴ, z_l = W y_l and b_l(g) = W H diag(c_l) a_g.

    Args:
        grid: the dictionary's places.
        z: `B x L x M` complex, W y_l; `B x 1 x LM` where symbols are constant.
        Phi: `B x L x M x N` complex, W H diag(c_l), or `B x 1 x LM x N`.
        energy: `B x L x G` real, about ‖b_l(g)‖², in the order of `unfolded`.
        basis: `B x L x M x K` complex, orthonormal columns that span what was chosen.
    """

    grid: FoldedGrid
    z: Tensor
    Phi: Tensor
    energy: Tensor
    basis: Tensor

    @classmethod
    def of(cls, y: Tensor, H_full: Tensor, C: Tensor, grid: FoldedGrid, cfg: Config) -> Beams:
        """Whiten measurements.

        Args:
            y: `B x L x M` complex.
            H_full: `B x M x N` complex.
            C: `B x L x N` complex.
            grid: of places.
            cfg: reads `scene.symbols`.
        """
        values, left = torch.linalg.eigh(H_full @ H_full.mH)
        lifted = values.clamp_min(0) + values.mean(-1, keepdim=True)
        whitener = lifted.rsqrt()[..., None] * left.mH
        Phi = (whitener @ H_full)[:, None] * C[:, :, None]
        z = y @ whitener.mT
        count = min(FOLLOWED, Phi.shape[2])
        rest = (values / lifted)[:, :-count].sum(-1)
        energy = _hits(Phi[:, :, -count:], grid) + rest[:, None, None]
        if cfg.scene.symbols == "constant":
            z, Phi, energy = z.flatten(1)[:, None], Phi.flatten(1, 2)[:, None], energy.sum(1, keepdim=True)
        return cls(grid, z, Phi, energy, z.new_empty(*z.shape, 0))

    def left(self) -> Tensor:
        """Return what the chosen places leave of z, as z."""
        inside: Tensor = (self.basis @ (self.basis.mH @ self.z[..., None]))[..., 0]
        return self.z - inside

    def log_gain(self) -> Tensor:
        """Return log Σ_l |b_l(g)ᴴ r_l|²/‖b_l(g)‖² over the energy of z, r_l what is left, `B x G` real."""
        back = self.left().conj()[:, :, None] @ self.Phi
        gain = (_hits(back, self.grid) / self.energy).sum(1)
        return _log(self.grid.volume(gain.unflatten(1, (4, -1))).flatten(1) / self._size()[:, None])

    def log_left(self) -> Tensor:
        """Return the log of the share of the energy of z that is left, `B` real."""
        return _log(_power(self.left()).sum((1, 2)) / self._size())

    def _size(self) -> Tensor:
        return _power(self.z).sum((1, 2)).clamp_min(torch.finfo(self.energy.dtype).tiny)

    def beside(self, chosen: Tensor) -> Beams:
        """Return the same beside one more place of each scene, `B` int64 into the grid."""
        azimuth, elevation, inverse = self.grid.places[chosen].unbind(-1)
        b = (self.Phi @ steering(self.grid.array, azimuth, elevation, 1 / inverse)[:, None, :, None])[..., 0]
        # Twice, for what rounding leaves of the span where b lies nearly within it.
        for _ in range(2):
            b = b - (self.basis @ (self.basis.mH @ b[..., None]))[..., 0]
        size = torch.linalg.vector_norm(b, dim=-1, keepdim=True).clamp_min(torch.finfo(self.energy.dtype).tiny)
        return replace(self, basis=torch.cat([self.basis, (b / size)[..., None]], -1))


def _hits(rows: Tensor, grid: FoldedGrid) -> Tensor:
    """Return Σ_p |row_lp · a_g|² of `B x L x P x N` complex rows, `B x L x G` real in the order of `unfolded`."""
    found = []
    for part in rows.split(TOGETHER):
        squares = unfolded(grid.products(part.flatten(0, 2))).square_()
        found.append(squares.unflatten(1, part.shape[:3]).sum((3, 4)).permute(1, 2, 0, 3).flatten(2))
    return torch.cat(found)


def _log(share: Tensor) -> Tensor:
    return share.clamp_min(torch.finfo(share.dtype).eps ** 2).log()


def _power(z: Tensor) -> Tensor:
    return z.real.square() + z.imag.square()
