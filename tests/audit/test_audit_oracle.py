"""The audit's own closed forms: slopes of the steering vector against differences."""

from __future__ import annotations

import numpy as np
import pytest

from ris_verified.audit.oracle import wave, wave_slopes
from ris_verified.config import ArrayConfig

PLACE = np.array([[0.3, -0.7], [0.1, 0.4], [1.2, 6.0]])


@pytest.mark.parametrize("amplitude", ["unit", "spherical"])
def test_slopes_are_the_limit_of_differences(amplitude: str) -> None:
    array = ArrayConfig(horizontal=5, vertical=3, wavelength=0.3, amplitude=amplitude)  # type: ignore[arg-type]
    slopes, eps = wave_slopes(array, *PLACE), np.finfo(float).eps
    for axis, step in enumerate(np.eye(3)):
        # Richardson's pair leaves h⁴ of the fifth derivative, and eps/h of rounding.
        h = eps ** (1 / 5)
        near, far = (
            (wave(array, *(PLACE + m * h * step[:, None])) - wave(array, *(PLACE - m * h * step[:, None])))
            / (2 * m * h)
            for m in (1, 2)
        )
        k = 2 * np.pi / array.wavelength
        assert np.abs((4 * near - far) / 3 - slopes[axis]).max() < (k * 0.6) ** 5 * eps ** (4 / 5)
