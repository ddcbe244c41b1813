"""The folded spectrum is the plain one, to rounding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ris_verified.config import Config
from ris_verified.errors import ConfigError, ShapeError
from ris_verified.estimate.folded_spectrum import SCENES, folded_music
from ris_verified.estimate.grid import spectrum_grid
from ris_verified.estimate.spectrum import music, signal_subspace

GRID = ["estimate.grid_azimuth=10", "estimate.grid_elevation=6", "estimate.grid_range=3"]
PANELS = {"even": [], "odd": ["array.horizontal=5", "array.vertical=3"], "line": ["array.vertical=1"]}


def _covariance(cfg: Config, scenes: int, dtype: torch.dtype) -> Tensor:
    shape = (scenes, cfg.array.elements, cfg.array.elements)
    X = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))
    return X @ X.mH


@pytest.mark.parametrize("amplitude", ["unit", "spherical"])
@pytest.mark.parametrize("panel", PANELS)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_it_is_the_spectrum_of_music(panel: str, amplitude: str, dtype: torch.dtype) -> None:
    cfg = Config.load(None, [*GRID, *PANELS[panel], f"array.amplitude={amplitude}"])
    R, K = _covariance(cfg, 3, dtype), torch.tensor([1, 2, 3])
    plain, folded = music(R, K, cfg), folded_music(signal_subspace(R, K, 3), cfg)
    # Shares of at most one, each a sum of N products: 4 N eps on either side.
    eps, N = torch.finfo(plain.dtype).eps, cfg.array.elements
    assert folded.dtype == plain.dtype
    assert float((1 / plain - 1 / folded).abs().max()) <= 8 * N * eps


def test_scenes_beyond_one_piece_keep_their_order() -> None:
    cfg = Config.load(None, [*GRID, "array.horizontal=4", "array.vertical=4"])
    U = signal_subspace(_covariance(cfg, SCENES + 2, torch.complex128), torch.full((SCENES + 2,), 2), 2)
    whole = folded_music(U, cfg)
    assert torch.allclose(whole[-1], folded_music(U[-1:], cfg)[0], rtol=1e-10, atol=0)


def test_a_source_on_the_grid_peaks_there() -> None:
    cfg = Config.load(None, GRID)
    _, atoms = spectrum_grid(cfg, torch.float64, torch.device("cpu"))
    for place in (0, 7, 59, 101, 179):
        assert int(folded_music(atoms[place][None, :, None], cfg).argmax()) == place


def test_an_odd_grid_is_refused() -> None:
    cfg = Config.load(None, ["estimate.grid_azimuth=9"])
    with pytest.raises(ConfigError, match="even"):
        folded_music(torch.zeros(1, cfg.array.elements, 1, dtype=torch.complex128), cfg)


def test_a_real_subspace_is_refused() -> None:
    with pytest.raises(ShapeError):
        folded_music(torch.zeros(1, 144, 1), Config())
