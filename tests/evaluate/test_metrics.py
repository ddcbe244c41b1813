"""What evaluation says of perfect, missing and shifted estimates."""

from __future__ import annotations

import math

import pytest
import torch

from ris_verified.array.geometry import to_cartesian
from ris_verified.array.steering import steering
from ris_verified.config import ArrayConfig, Config
from ris_verified.covariance.capture import subspace_capture
from ris_verified.covariance.trace import trace_normalised
from ris_verified.estimate.result import Peaks
from ris_verified.evaluate.metrics import errors, position_bound, summary
from ris_verified.pipeline import Pipeline

NAN = math.nan
PTR = torch.tensor([[[0.3, 0.1, 2.0], [-0.5, -0.2, 5.0]], [[0.1, 0.2, 1.0], [NAN, NAN, NAN]]], dtype=torch.float64)
SIGMA = torch.tensor([0.01, 0.02, 0.1] * 2, dtype=torch.float64)
CRB = torch.diag(SIGMA.square()).expand(2, 6, 6)
ALL = torch.ones(2, dtype=torch.bool)


def _judged(shift=(0.0, 0.0, 0.0), keep=2):
    moved = PTR + torch.tensor(shift, dtype=torch.float64)
    azimuth, elevation, range = moved.flip(1)[:, -keep:].unbind(-1)
    return errors(Pipeline.default(Config()), Peaks(azimuth, elevation, range), PTR, CRB)


def test_a_perfect_estimate_scores_perfectly_in_any_order():
    judged = _judged()
    assert judged.found.all()
    assert judged.found_strictly.all()
    figures = summary(judged, PTR, ALL)
    assert figures["position_rmse"] == pytest.approx(0, abs=1e-12)
    assert figures["missed"] == 0


def test_a_missed_source_is_not_found_and_counted():
    judged = _judged(keep=1)
    assert judged.found.tolist() == [False, True]
    assert summary(judged, PTR, ALL)["missed"] == pytest.approx(1 / 3)


def test_a_wrong_direction_hides_behind_a_large_range_bound_but_not_strictly():
    # 0.05 rad at 1 m is 5 cm, half the position bound, and five bounds in azimuth.
    judged = _judged(shift=(0.05, 0.0, 0.0))
    assert judged.found[1]
    assert not judged.found_strictly[1]


def test_position_bound_is_the_cartesian_spread():
    generator = torch.Generator().manual_seed(0)
    draws = PTR[0, 0] + SIGMA[:3] * torch.randn(200_000, 3, generator=generator, dtype=torch.float64)
    spread = (to_cartesian(*draws.unbind(-1)) - to_cartesian(*PTR[0, 0])).norm(dim=-1).square().mean().sqrt()
    # Relative error of an RMS over n draws is about 1/√(2n); curvature adds σ²/2.
    assert float(position_bound(PTR, CRB)[0, 0]) == pytest.approx(float(spread), rel=5 / math.sqrt(4e5) + 2e-4)


def test_an_empty_group_says_so():
    assert summary(_judged(), PTR, ~ALL) == {"scenes": 0}


def test_capture_is_one_on_the_truth_and_nothing_on_its_complement():
    array = ArrayConfig(horizontal=4, vertical=3)
    place = torch.where(torch.isfinite(PTR), PTR, torch.ones_like(PTR))
    A = steering(array, *place.unbind(-1)).mT * torch.isfinite(PTR[..., 0])[:, None]
    truth = trace_normalised(A @ A.mH)
    assert torch.allclose(subspace_capture(truth, PTR, array), torch.ones(2).double(), atol=1e-12)
    U = torch.linalg.svd(A)[0]
    complement = U[..., 2:] @ U[..., 2:].mH
    assert torch.allclose(subspace_capture(complement, PTR, array), torch.zeros(2).double(), atol=1e-12)
