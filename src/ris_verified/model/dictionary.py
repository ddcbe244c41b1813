"""The dictionary of places over which the features are laid."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ris_verified.array.grid import view_grid
from ris_verified.config import Config


class Dictionary(nn.Module):
    """Places on planes of equal 1/range, uniform in the sines of both angles.

    Args:
        cfg: reads the field of view of `scene` and `model.dictionary_*`.

    Buffers (not stored with the weights; they follow from the configuration):
        coordinates: `G x 3` float32, azimuth (rad), elevation (rad), 1/range (1/m).
        cell: `3` float32, size of a cell in the middle of the view.
    """

    coordinates: Tensor
    cell: Tensor

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        m, s = cfg.model, cfg.scene
        self.shape = (m.dictionary_range, m.dictionary_elevation, m.dictionary_azimuth)
        coordinates = view_grid(s, self.shape)
        span = (2 * math.sin(s.azimuth_max), 2 * math.sin(s.elevation_max), 1 / s.range_min - 1 / s.range_max)
        step = [length / count for length, count in zip(span, reversed(self.shape), strict=True)]
        self.register_buffer("coordinates", coordinates.float(), persistent=False)
        self.register_buffer("cell", torch.tensor(step), persistent=False)

    def cell_of(self, places: Tensor) -> Tensor:
        """Return where in a plane of the grid places are, `B x K x 3` → `B x K` int64."""
        plane = self.coordinates.view(self.shape[0], -1, 3)[0, :, :2]
        cell: Tensor = torch.cdist(places[..., :2], plane).argmin(-1)
        return cell
