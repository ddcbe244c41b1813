"""Each mismatch does what it says, against formulas written out here."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ris_verified.array.steering import steering
from ris_verified.config import Config
from ris_verified.errors import InputError
from ris_verified.evaluate.axes import Cell
from ris_verified.evaluate.cell import figures, localised, prepared
from ris_verified.evaluate.mismatch import MISMATCHES, World, mismatched
from ris_verified.pipeline import Pipeline
from ris_verified.scene.scene import draw_scene

CFG = Config()
SCENE = draw_scene(CFG, 0, 1)
NOMINAL = World(
    SCENE.H_full,
    SCENE.codes,
    steering(CFG.array, SCENE.azimuth, SCENE.elevation, SCENE.range).numpy().T,
    np.ones(CFG.scene.antennas, np.complex128),
)


def _world(name, level, seed=0):
    return MISMATCHES[name](NOMINAL, SCENE, np.random.default_rng(seed), level, CFG)


def test_phase_errors_are_of_the_elements_and_have_their_level():
    turned = np.angle(_world("phase", 0.2).codes / NOMINAL.codes)
    assert np.allclose(turned, turned[0], atol=1e-12), "the same in every snapshot"
    # Standard deviation over n draws is off by 1/√(2n), three of them.
    assert turned[0].std() == pytest.approx(0.2, rel=3 / np.sqrt(2 * 144))


def test_position_errors_move_elements_against_each_other_only():
    # The phase that a shift of rms length 1 cm causes has rms k·0.01/√3, whatever the direction it is seen from.
    moved = np.angle(_world("position", 0.01).A / NOMINAL.A)
    assert moved.std() == pytest.approx(CFG.array.wavenumber * 0.01 / np.sqrt(3), rel=3 / np.sqrt(2 * 144))
    # No mean shift is no mean phase of a source so far away that its waves are flat: what is left is curvature.
    far = replace(SCENE, range=np.full(SCENE.range.size, 1e4))
    flat = np.angle(MISMATCHES["position"](NOMINAL, far, np.random.default_rng(0), 0.01, CFG).A / NOMINAL.A)
    assert np.abs(flat.mean(0)).max() < CFG.array.wavenumber * 0.01 * 2 / 1e4


def test_the_channel_error_is_relative():
    error = _world("channel", 0.1).H_full - NOMINAL.H_full
    assert np.linalg.norm(error) / np.linalg.norm(NOMINAL.H_full) == pytest.approx(0.1, rel=3 / np.sqrt(error.size))


def test_unknown_scattering_follows_kappa():
    error = _world("rician", 0.5).H_full - NOMINAL.H_full
    scattered = 1 / (1 + SCENE.rician_factor)
    assert (np.abs(error) ** 2).mean() * CFG.array.elements == pytest.approx(
        0.25 * scattered, rel=3 / np.sqrt(error.size)
    )


def test_level_one_of_amplitude_is_the_spherical_model():
    spherical = CFG.replaced({"array.amplitude": "spherical"})
    expected = steering(spherical.array, SCENE.azimuth, SCENE.elevation, SCENE.range).numpy().T
    # Two ways of writing one product of distances.
    assert np.allclose(_world("amplitude", 1.0).A, expected, rtol=0, atol=64 * np.finfo(float).eps)
    with pytest.raises(InputError, match="unit amplitude"):
        mismatched(SCENE, spherical, {"amplitude": 1.0}, 0)


def test_calibration_errors_are_of_the_antennas():
    changed = mismatched(SCENE, CFG, {"calibration": 0.1}, 0)
    gain = changed.y_clean / SCENE.y_clean
    assert np.allclose(gain, gain[0], atol=1e-10), "the same in every snapshot"
    assert 0.02 < np.abs(gain[0] - 1).mean() < 0.3


def test_the_estimator_gets_the_nominal_channel_codes_and_noise():
    changed = mismatched(SCENE, CFG, {"phase": 0.3, "channel": 0.2}, 0)
    assert changed.H_full is SCENE.H_full
    assert changed.codes is SCENE.codes
    noise = [s.y - s.y_clean for s in (changed, SCENE)]
    assert np.allclose(*noise, rtol=0, atol=16 * np.finfo(float).eps * np.abs(SCENE.y).max())
    assert not np.allclose(changed.y, SCENE.y)


def test_names_act_in_any_order_and_unknown_ones_are_named():
    one = mismatched(SCENE, CFG, {"phase": 0.1, "calibration": 0.1}, 7)
    other = mismatched(SCENE, CFG, {"calibration": 0.1, "phase": 0.1}, 7)
    assert np.array_equal(one.y, other.y)
    assert not np.array_equal(one.y, mismatched(SCENE, CFG, {"phase": 0.1, "calibration": 0.1}, 8).y)
    with pytest.raises(InputError, match="phaze"):
        mismatched(SCENE, CFG, {"phaze": 0.1}, 0)


@pytest.mark.parametrize(("name", "level"), [("phase", 0.3), ("channel", 0.2), ("calibration", 0.3)])
def test_a_wrong_model_costs_accuracy(name, level):
    pipeline, ratios = Pipeline.default(CFG), []
    for levels in ({}, {name: level}):
        cell = Cell(1, 30.0, 2.0, 0.0, levels)
        scenes = prepared(pipeline, [cell.scene(CFG, i) for i in range(12)])
        found = figures(pipeline, localised(pipeline, None, scenes), scenes, 1.0, np.random.default_rng(0))
        ratios.append(found["error_over_bound_median"]["value"])
    assert ratios[0] < 2, "the exact model reaches about its bound"
    assert ratios[1] > 3 * ratios[0]
