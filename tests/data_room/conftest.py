"""A small panel, a folder of its scenes, and the spherical wave written down once more."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ris_verified.config import ArrayConfig, Config, DataConfig, SceneConfig
from ris_verified.data.generate import generate

DATA = {"train_scenes": 7, "validation_scenes": 3, "test_scenes": 2, "shard_scenes": 2, "workers": 1}


@pytest.fixture(scope="session")
def small() -> Config:
    """Return 12 elements, 4 antennas, 3 snapshots, up to 3 sources, 12 scenes in 7 shards."""
    array = ArrayConfig(horizontal=4, vertical=3)
    scene = SceneConfig(antennas=4, snapshots=3, sources_max=3, power_spread_db=6.0)
    return Config(seed=5, array=array, scene=scene, data=DataConfig(**DATA))


@pytest.fixture(scope="session")
def _once(small: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "data"
    generate(small, folder)
    return folder


@pytest.fixture
def sound(_once: Path, tmp_path: Path) -> Path:
    """Return a whole data folder of `small` that the test may damage."""
    return Path(shutil.copytree(_once, tmp_path / "sound"))


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], dict[str, bytes]]:
    """Return a function that reads every file of a folder, hidden ones too."""
    return lambda folder: {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="session")
def wave() -> Callable[..., NDArray[np.complex128]]:
    """Return `N x K` exact spherical waves, from the design's text and by the plain difference."""

    def response(cfg: Config, azimuth, elevation, distance) -> NDArray[np.complex128]:
        a = cfg.array
        v, h = np.divmod(np.arange(a.elements), a.horizontal)
        element = np.stack([0 * h, h - (a.horizontal - 1) / 2, v - (a.vertical - 1) / 2], -1) * a.spacing
        flat = np.cos(elevation)
        source = distance * np.stack([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
        away = np.linalg.norm(source.T - element[:, None], axis=-1)
        gain = distance / away if a.amplitude == "spherical" else 1.0
        return gain * np.exp(-2j * np.pi / a.wavelength * (away - distance))

    return response
