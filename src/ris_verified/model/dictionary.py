"""The dictionary of steering vectors on which the heads choose."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ris_verified.array.steering import steering
from ris_verified.config import Config

LOBE = 0.5


def axis_midpoints(low: float, high: float, count: int) -> Tensor:
    """Return the centres of `count` equal cells of [low, high], float64."""
    return low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count


class Dictionary(nn.Module):
    """Steering vectors on planes of equal 1/range, uniform in the sines of both angles.

    Args:
        cfg: reads `array`, the field of view of `scene` and `model.dictionary_*`.

    Buffers (not stored with the weights; they follow from the configuration):
        atoms: `N x 2G` float32, real and imaginary parts side by side, G = R·V·H.
        coordinates: `G x 3` float32, azimuth (rad), elevation (rad), 1/range (1/m).
        lobe: `G x G` bool, |a_gᴴa_g'| > N/2: the main lobe around each atom.
        cell: `3` float32, size of a cell in the middle of the view.
    """

    atoms: Tensor
    coordinates: Tensor
    lobe: Tensor
    cell: Tensor

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        m, s = cfg.model, cfg.scene
        top = math.sin(s.azimuth_max), math.sin(s.elevation_max)
        azimuth = axis_midpoints(-top[0], top[0], m.dictionary_azimuth).asin()
        elevation = axis_midpoints(-top[1], top[1], m.dictionary_elevation).asin()
        inverse = axis_midpoints(1 / s.range_max, 1 / s.range_min, m.dictionary_range)
        self.shape = (m.dictionary_range, m.dictionary_elevation, m.dictionary_azimuth)
        grid = torch.meshgrid(inverse, elevation, azimuth, indexing="ij")
        u, theta, phi = (axis.flatten() for axis in grid)
        a = steering(cfg.array, phi, theta, 1 / u).to(torch.complex64)
        step = (2 * top[0] / self.shape[2], 2 * top[1] / self.shape[1], float(u[-1] - u[0]) / self.shape[0])
        correlation = (a.conj() @ a.T).abs() / a.shape[-1]
        self.register_buffer("atoms", torch.cat([a.real, a.imag]).T.contiguous(), persistent=False)
        self.register_buffer("coordinates", torch.stack([phi, theta, u], -1).float(), persistent=False)
        self.register_buffer("lobe", correlation > LOBE, persistent=False)
        self.register_buffer("cell", torch.tensor(step), persistent=False)

    def beam_power(self, snapshots: Tensor) -> Tensor:
        """Return Σ_l |a_gᴴ x_l|² / (N Σ_l ‖x_l‖²).

        Args:
            snapshots: `B x L x N` complex64.

        Returns:
            `B x R x V x H` float32 in [0, 1].
        """
        real, imag = self.atoms.chunk(2, -1)
        x, z = snapshots.real, snapshots.imag
        power = ((x @ real + z @ imag).square() + (z @ real - x @ imag).square()).sum(1)
        energy = (x.square() + z.square()).sum((1, 2)) * x.shape[-1]
        share: Tensor = power / energy.clamp_min(torch.finfo(power.dtype).tiny)[:, None]
        grid: Tensor = share.unflatten(-1, self.shape)
        return grid
