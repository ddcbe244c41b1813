"""Steps on the projected objective: what they keep."""

from __future__ import annotations

import torch

from ris_verified.config import Config, SceneConfig
from ris_verified.estimate.descent import improved
from ris_verified.estimate.linearised import linearised
from ris_verified.estimate.measurement import Measurement
from ris_verified.estimate.parameters import to_parameters
from ris_verified.estimate.result import Peaks


def test_a_step_keeps_the_load_of_its_start_with_the_tikhonov_weight_once(drawn):
    cfg = Config(scene=SceneConfig(sources_min=2, sources_max=2)).replaced({"estimate.mle_ridge": 3.0})
    truth = drawn(cfg, 6)
    places = to_parameters(Peaks(*truth.ptr.unbind(-1)))
    data = Measurement.of(*truth.measurement, cfg)
    start = linearised(places + 0.01, data, torch.full((6, 1), 2.0, dtype=torch.float64))
    after = improved(start, data, start.given_load(data))
    assert (after.cost < start.cost).any()
    assert torch.equal(start.load, torch.full((6, 2), 5.0, dtype=torch.float64))
    assert torch.equal(after.load, start.load)
