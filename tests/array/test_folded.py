"""A folded grid's shares are those of its places' steering vectors, each alone."""

from __future__ import annotations

import pytest
import torch

from ris_verified.array.folded import TOGETHER, folded
from ris_verified.array.steering import steering
from ris_verified.config import ArrayConfig, SceneConfig

SHAPE = (3, 6, 10)
PANELS = {"even": (12, 12), "odd": (5, 3), "line": (7, 1)}


def _subspaces(scenes, N, dtype):
    blocks = torch.randn(scenes, N, 3, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return torch.linalg.qr(blocks)[0]


def _grid(array, dtype=torch.float64):
    return folded(array, SceneConfig(), SHAPE, dtype, torch.device("cpu"))


@pytest.mark.parametrize("amplitude", ["unit", "spherical"])
@pytest.mark.parametrize("panel", PANELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shares_are_those_of_the_steering_vectors(panel, amplitude, dtype):
    horizontal, vertical = PANELS[panel]
    array = ArrayConfig(horizontal=horizontal, vertical=vertical, amplitude=amplitude)
    U, grid = _subspaces(TOGETHER + 2, array.elements, dtype.to_complex()), _grid(array, dtype)
    azimuth, elevation, inverse = _grid(array).places.unbind(-1)
    a = steering(array, azimuth, elevation, 1 / inverse)
    a = a / torch.linalg.vector_norm(a, dim=-1, keepdim=True)
    plain = (a.conj() @ U.to(a.dtype)).abs().square().sum(-1)
    # Shares of at most one, each from products of N terms.
    assert (grid.inside(U) - plain).abs().max() <= 4 * array.elements * torch.finfo(dtype).eps


@pytest.mark.parametrize("place", [0, 7, 59, 101, 179])
def test_every_vector_lies_wholly_inside_its_own_span(place):
    array = ArrayConfig()
    azimuth, elevation, inverse = _grid(array).places[place]
    a = steering(array, azimuth, elevation, 1 / inverse)
    shares = _grid(array).inside((a / a.norm())[None, :, None])
    assert int(shares.argmax()) == place
    assert float(shares.max()) == pytest.approx(1.0, abs=4 * array.elements * torch.finfo(torch.float64).eps)
