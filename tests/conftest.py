"""Fixtures shared by all tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

SCENES = Path(__file__).parent / "data" / "scenes.npz"


@pytest.fixture(scope="session")
def oracle() -> Callable[[int], dict[str, NDArray[np.generic]]]:
    """Return a loader of the independently computed scene `i` (0–4), plus `element_positions`."""
    with np.load(SCENES) as archive:
        arrays = {name: archive[name] for name in archive.files}

    def load(index: int) -> dict[str, NDArray[np.generic]]:
        prefix = f"scene{index}/"
        scene = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
        return {**scene, "element_positions": arrays["element_positions"]}

    return load


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
