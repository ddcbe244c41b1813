"""Element positions and coordinates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ris_verified.array.geometry import element_positions, to_cartesian, to_spherical
from ris_verified.config import ArrayConfig


def test_positions_agree_with_the_oracle(oracle):
    assert np.array_equal(element_positions(ArrayConfig()).numpy(), oracle(0)["element_positions"])


@pytest.mark.parametrize(("horizontal", "vertical"), [(1, 1), (3, 2), (12, 12), (5, 8)])
def test_horizontal_index_is_fastest_and_array_is_centred(horizontal, vertical):
    array = ArrayConfig(horizontal=horizontal, vertical=vertical)
    grid = element_positions(array).reshape(vertical, horizontal, 3)
    assert torch.all(grid[..., 0] == 0)
    assert torch.allclose(grid.mean((0, 1)), torch.zeros(3, dtype=torch.float64), atol=1e-15)
    if horizontal > 1:
        assert torch.allclose(grid[:, 1:, 1] - grid[:, :-1, 1], torch.tensor(array.spacing, dtype=torch.float64))
    if vertical > 1:
        assert torch.allclose(grid[1:, :, 2] - grid[:-1, :, 2], torch.tensor(array.spacing, dtype=torch.float64))


def test_azimuth_turns_from_x_to_y_and_elevation_to_z():
    quarter = torch.tensor(torch.pi / 2, dtype=torch.float64)
    zero, two = torch.zeros_like(quarter), torch.tensor(2.0, dtype=torch.float64)
    close = {"rtol": 0, "atol": 1e-15}
    assert torch.allclose(to_cartesian(zero, zero, two), two * torch.tensor([1.0, 0, 0]).double(), **close)
    assert torch.allclose(to_cartesian(quarter, zero, two), two * torch.tensor([0, 1.0, 0]).double(), **close)
    assert torch.allclose(to_cartesian(zero, quarter, two), two * torch.tensor([0, 0, 1.0]).double(), **close)


def test_spherical_round_trip():
    generator = torch.Generator().manual_seed(1)
    p = torch.randn(50, 3, generator=generator, dtype=torch.float64)
    assert torch.allclose(to_cartesian(*to_spherical(p)), p, rtol=1e-14, atol=1e-14)
