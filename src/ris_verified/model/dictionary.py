"""The dictionary of steering vectors on which the heads choose."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ris_verified.array.grid import view_grid
from ris_verified.array.steering import steering
from ris_verified.config import Config

LOBE = 0.5


class Dictionary(nn.Module):
    """Steering vectors on planes of equal 1/range, uniform in the sines of both angles.

    Args:
        cfg: reads `array`, the field of view of `scene` and `model.dictionary_*`.

    Buffers (not stored with the weights; they follow from the configuration):
        coordinates: `G x 3` float32, azimuth (rad), elevation (rad), 1/range (1/m).
        lobe: `G x G` bool, |a_gᴴa_g'| > N/2: the main lobe around each atom.
        cell: `3` float32, size of a cell in the middle of the view.
    """

    coordinates: Tensor
    lobe: Tensor
    cell: Tensor

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        m, s = cfg.model, cfg.scene
        self.shape = (m.dictionary_range, m.dictionary_elevation, m.dictionary_azimuth)
        coordinates = view_grid(s, self.shape)
        azimuth, elevation, inverse = coordinates.unbind(-1)
        a = steering(cfg.array, azimuth, elevation, 1 / inverse).to(torch.complex64)
        span = (2 * math.sin(s.azimuth_max), 2 * math.sin(s.elevation_max), 1 / s.range_min - 1 / s.range_max)
        step = [length / count for length, count in zip(span, reversed(self.shape), strict=True)]
        correlation = (a.conj() @ a.T).abs() / a.shape[-1]
        self.register_buffer("coordinates", coordinates.float(), persistent=False)
        self.register_buffer("lobe", correlation > LOBE, persistent=False)
        self.register_buffer("cell", torch.tensor(step), persistent=False)
