"""Scenes built around given positions."""

from __future__ import annotations

import numpy as np
import pytest

from ris_verified.array.steering import steering
from ris_verified.config import Config
from ris_verified.errors import ShapeError
from ris_verified.scene.scene import draw_scene, forward, scene_at

AZIMUTH, ELEVATION, RANGE = np.array([0.3, -0.5]), np.array([0.1, -0.2]), np.array([1.0, 4.0])


def _at(snr_db: float, seed: int = 3):
    return scene_at(Config(), AZIMUTH, ELEVATION, RANGE, snr_db=snr_db, rng=np.random.default_rng(seed))


def test_the_sources_stand_where_they_were_put_and_the_measurement_is_the_forward_model():
    scene = _at(10.0)
    assert np.array_equal(scene.azimuth, AZIMUTH)
    assert np.array_equal(scene.range, RANGE)
    A = steering(Config().array, AZIMUTH, ELEVATION, RANGE).numpy().T
    expected = forward(scene.H_full, scene.codes, A, scene.symbols)
    # Sums over N elements and over K sources.
    assert np.allclose(scene.y_clean, expected, rtol=0, atol=np.finfo(float).eps * 144 * np.abs(expected).max())


def test_the_stated_snr_is_that_of_the_signal():
    scene = _at(7.0)
    assert 10 * np.log10(np.mean(np.abs(scene.y_clean) ** 2) / scene.noise_variance) == pytest.approx(7.0, abs=1e-12)


def test_two_snrs_share_everything_but_the_strength_of_the_noise():
    weak, strong = _at(0.0), _at(20.0)
    assert np.array_equal(weak.y_clean, strong.y_clean)
    noise = [scene.y - scene.y_clean for scene in (weak, strong)]
    # y − y_clean keeps y's rounding.
    assert np.allclose(noise[0], 10 * noise[1], rtol=0, atol=32 * np.finfo(float).eps * np.abs(weak.y).max())


def test_a_drawn_scene_comes_back_from_its_positions_where_the_generator_stands_there():
    cfg = Config()
    drawn = draw_scene(cfg, 1, 4)
    rng = np.random.default_rng([cfg.seed, 1, 4])
    K = int(rng.integers(cfg.scene.sources_min, cfg.scene.sources_max + 1))
    rng.uniform(size=3 * K)
    ahead = np.random.default_rng([cfg.seed, 1, 4])
    ahead.bit_generator.state = rng.bit_generator.state
    # Powers and κ come before the SNR in `draw_scene`; the SNR itself takes one draw more.
    again = scene_at(cfg, drawn.azimuth, drawn.elevation, drawn.range, snr_db=drawn.snr_db, rng=ahead)
    assert again.rician_factor == drawn.rician_factor
    assert np.array_equal(again.powers, drawn.powers)


@pytest.mark.parametrize("azimuth", [np.array([0.1]), np.zeros((2, 1)), np.array(0.3)])
def test_positions_of_other_shapes_are_refused(azimuth):
    with pytest.raises(ShapeError, match="one length"):
        scene_at(Config(), azimuth, ELEVATION, RANGE, snr_db=0.0, rng=np.random.default_rng(0))
