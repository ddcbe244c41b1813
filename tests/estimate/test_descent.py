"""Steps on the projected objective: what they keep."""

from __future__ import annotations

import dataclasses

import torch

from ris_verified.config import Config, SceneConfig
from ris_verified.estimate.descent import _step, descend, improved
from ris_verified.estimate.linearised import linearised
from ris_verified.estimate.measurement import Measurement
from ris_verified.estimate.parameters import clamped, limits, to_parameters
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


def test_what_crosses_a_limit_stops_there_and_the_others_step_knowing_that(drawn):
    cfg = Config(scene=SceneConfig(sources_min=2, sources_max=2))
    truth = drawn(cfg, 8)
    data, places = Measurement.of(*truth.measurement, cfg), to_parameters(Peaks(*truth.ptr.unbind(-1)))
    low, high = limits(cfg, places)
    places = clamped(places, cfg) * 0.9
    places[:, 0, 2] = low[2] + 1e-4
    now = linearised(places, data)
    # Freely the first source would go beyond the largest range and all else a little way.
    wanted = torch.full_like(now.slope, 1e-4)
    wanted[:, 2] = -1e-2
    now = dataclasses.replace(now, slope=(now.curvature @ wanted[..., None])[..., 0])
    damping = torch.full((8,), 1e-12, dtype=torch.float64)
    step, _ = _step(now, torch.zeros_like(now.curvature), damping, data)
    there = places + step
    assert torch.equal(there[:, 0, 2], low[2].expand(8))
    inside = ((there > low) & (there < high)).flatten(1)
    assert inside.sum() >= 4 * 8
    # Where it is free, the quadratic model has no slope left.
    slope = now.slope - (now.curvature @ step.flatten(1)[..., None])[..., 0]
    size = (now.curvature.abs() @ step.flatten(1).abs()[..., None])[..., 0]
    assert (slope.abs() <= 1e-6 * size)[inside].all()


def test_what_ends_at_the_largest_range_has_no_slope_left_in_its_angles(drawn):
    cfg = Config(scene=SceneConfig(sources_min=1, sources_max=1, snr_db_min=0.0, snr_db_max=0.0))
    truth = drawn(cfg, 24)
    start = truth.ptr.clone()
    start[..., 2] = 0.95 * cfg.scene.range_max
    data = Measurement.of(*truth.measurement, cfg)
    ends = descend(linearised(to_parameters(Peaks(*start.unbind(-1))), data), data, 20, 1e-2)
    low, _ = limits(cfg, ends.parameters)
    at_limit = ends.parameters[:, 0, 2] == low[2]
    assert at_limit.any()
    # There the range is held by the limit, and azimuth and elevation have no slope left.
    slope = ends.slope / torch.diagonal(ends.curvature, dim1=-2, dim2=-1).sqrt()
    assert (slope[at_limit, 2] < 0).all()
    assert (slope[at_limit, :2].abs() < 0.05 * ends.noise_variance[at_limit, None].sqrt()).all()
