"""How the measurements see the grid, against the measurement model itself."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ris_verified.config import Config, SceneConfig
from ris_verified.estimate.field import first_gain, see
from ris_verified.estimate.measurement import Measurement
from ris_verified.estimate.projection import columns_at

SCENE = Config(scene=SceneConfig(snr_db_min=10.0, snr_db_max=10.0))


@pytest.mark.parametrize("symbols", ["varying", "constant"])
@pytest.mark.parametrize("strength", [0.125, 8.0])
def test_stronger_codes_are_seen_as_more_energy_and_the_same_gain(drawn, symbols, strength):
    cfg = dataclasses.replace(SCENE, scene=dataclasses.replace(SCENE.scene, symbols=symbols))
    y, H, C = drawn(cfg, 3).measurement
    once, more = (Measurement.of(g * y, H, g * C, cfg) for g in (1.0, strength))
    eps = torch.finfo(y.real.dtype).eps * y.shape[-1] * H.shape[-1]
    assert torch.allclose(see(more).energy, strength**2 * see(once).energy, rtol=eps, atol=0)
    first, second = first_gain(once)[1], first_gain(more)[1]
    assert torch.allclose(second, strength**2 * first, rtol=eps, atol=eps * float(second.max()))


def test_constant_symbols_see_the_energy_of_all_snapshots_at_once(drawn):
    constant = dataclasses.replace(SCENE, scene=dataclasses.replace(SCENE.scene, symbols="constant"))
    given = drawn(SCENE, 2).measurement
    each, joint = (see(Measurement.of(*given, cfg)).energy for cfg in (SCENE, constant))
    assert torch.allclose(joint, each.sum(1, keepdim=True), rtol=1e3 * torch.finfo(each.dtype).eps, atol=0)


def test_energy_is_that_of_the_columns_where_all_directions_are_followed(drawn):
    cfg = Config.load(overrides=["scene.antennas=4", "scene.sources_max=2"])
    data = Measurement.of(*drawn(cfg, 2).measurement, cfg)
    field = see(data)
    exact = columns_at(field.grid.places.expand(2, -1, -1), data).abs().square().sum(2)
    seen = field.grid.volume(field.energy.flatten(0, 1).unflatten(1, (4, -1))).flatten(1).unflatten(0, (2, -1))
    assert torch.allclose(seen, exact, rtol=1e3 * torch.finfo(exact.dtype).eps * exact.shape[-1], atol=0)
