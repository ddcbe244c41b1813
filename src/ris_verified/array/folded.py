"""A grid folded at the panel's two mirror planes: products with all of it at a quarter of the cost.

Mirroring the azimuth reverses each row of the panel and mirroring the elevation each column, so the even
and odd parts of a steering vector serve four places, up to signs.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ris_verified.array.grid import view_grid
from ris_verified.array.steering import steering
from ris_verified.config import ArrayConfig, SceneConfig

# Subspaces at a time: of each all columns' products with the grid are kept at once.
TOGETHER = 32
# How even–even, even–odd, odd–even and odd–odd parts add up at (+, +), (+, −), (−, +) and (−, −).
SIGNS = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))


@dataclass(frozen=True)
class FoldedGrid:
    """Places and their steering vectors; P = ⌈V/2⌉·⌈H/2⌉ for a panel of V x H elements.

    Args:
        array: the panel.
        places: `G x 3` real, azimuth, elevation, 1/range; azimuth is fastest, range slowest.
        squares: `G` real, ‖a_g‖².
        shape: range planes, elevations and azimuths.
        folding: `N x 4P` real, `fold` as a matrix.
        atoms: `4 x 2P x 2G/4` real, parts of a_g: what turns Re and Im of a row into Re and Im of its product.
    """

    array: ArrayConfig
    places: Tensor
    squares: Tensor
    shape: tuple[int, int, int]
    folding: Tensor
    atoms: Tensor

    def products(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the parts of rows·a_g for `R x N` complex rows, `4 x R x 2 x G/4` real, for `unfolded`."""
        # One product: sums and differences of mirrored elements take eight passes over memory.
        halves = torch.cat([rows.real, rows.imag]) @ self.folding
        split = halves.view(2, len(rows), 4, -1).permute(2, 1, 0, 3).flatten(2)
        flat = None if out is None else out.view(4, len(rows), -1)
        parts: Tensor = torch.bmm(split, self.atoms, out=flat).unflatten(2, (2, -1))
        return parts

    def room(self, rows: int) -> Tensor:
        """Return where `products` of so many rows can be put."""
        return self.atoms.new_empty(4, rows, 2, self.atoms.shape[2] // 2)

    def volume(self, values: Tensor) -> Tensor:
        """Put values of `unfolded` where their places are, `B x 4 x G/4` → `B x R x V x H`."""
        planes, rows, columns = self.shape
        q = values.unflatten(1, (2, 2)).unflatten(-1, (planes, rows // 2, columns // 2))
        wide = torch.cat([q[:, :, 1].flip(-1), q[:, :, 0]], -1)
        return torch.cat([wide[:, 1].flip(-2), wide[:, 0]], -2)

    def inside(self, U: Tensor) -> Tensor:
        """Return the shares ‖Uᴴa_g‖²/‖a_g‖² of `B x N x K` complex, `B x G` real."""
        return torch.cat([self._power(part) for part in U.split(TOGETHER)]) / self.squares

    def _power(self, U: Tensor) -> Tensor:
        hits = unfolded(self.products(U.mH.flatten(0, 1))).square_()
        return self.volume(hits.unflatten(1, (len(U), -1)).sum((2, 3)).transpose(0, 1)).flatten(1)


def fold(v: Tensor, array: ArrayConfig) -> Tensor:
    """Return sums and differences of mirrored elements, `R x N` → `4 x R x P`.

    Even–even, even–odd, odd–even and odd–odd in vertical and horizontal; a middle line meets itself.
    """
    panel = v.unflatten(-1, (array.vertical, array.horizontal))
    high, wide = (array.vertical + 1) // 2, (array.horizontal + 1) // 2
    top, bottom = panel[:, :high], panel.flip(1)[:, :high]
    halves = torch.stack([top + bottom, top - bottom])
    left, right = halves[..., :wide], halves.flip(3)[..., :wide]
    return torch.stack([left + right, left - right], 1).flatten(3).flatten(0, 1)


def unfolded(parts: Tensor, out: Tensor | None = None) -> Tensor:
    """Return the values at (+, +), (+, −), (−, +) and (−, −) of elevation and azimuth, `4 x ...` → `4 x ...`."""
    signs = parts.new_tensor(SIGNS)
    flat = None if out is None else out.view(4, -1)
    whole: Tensor = torch.mm(signs, parts.flatten(1), out=flat).view_as(parts)
    return whole


@functools.lru_cache(maxsize=8)
def folded(
    array: ArrayConfig, scene: SceneConfig, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device
) -> FoldedGrid:
    """Return the grid over the field of view of a scene in a real dtype.

    Args:
        array: the panel.
        scene: its field of view.
        shape: range planes, elevations and azimuths, the latter two even.
        dtype: real dtype.
        device: device.
    """
    # What is kept must serve training as well, whoever asks first.
    with torch.inference_mode(False), torch.no_grad():
        places = view_grid(scene, shape)
        corner = places.view(*shape, 3)[:, shape[1] // 2 :, shape[2] // 2 :].reshape(-1, 3)
        azimuth, elevation, inverse = corner.unbind(-1)
        vectors = steering(array, azimuth, elevation, 1 / inverse)
        parts = fold(vectors, array)
        a = (parts * torch.outer(_shares(array.vertical), _shares(array.horizontal)).flatten()).mT
        to_real, to_imaginary = torch.cat([a.real, -a.imag], 1), torch.cat([a.imag, a.real], 1)
        atoms = torch.cat([to_real, to_imaginary], 2).to(device, dtype).contiguous()
        folding = fold(torch.eye(array.elements, dtype=torch.float64), array).transpose(0, 1).flatten(1)
        squares = vectors.abs().square().sum(-1)
        grid = FoldedGrid(array, places, squares, shape, folding.to(device, dtype).contiguous(), atoms)
        squares = grid.volume(grid.squares.expand(1, 4, -1)).flatten()
        return replace(grid, places=places.to(device, dtype), squares=squares.to(device, dtype))


def _shares(size: int) -> Tensor:
    """Return the weights with which products of sums and differences add to the full product."""
    weight = torch.full(((size + 1) // 2,), 0.5, dtype=torch.float64)
    if size % 2:
        weight[-1] = 0.25
    return weight
