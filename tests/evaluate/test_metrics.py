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
from ris_verified.evaluate.metrics import Errors, errors, position_bound, summary
from ris_verified.pipeline import Pipeline

NAN = math.nan
PTR = torch.tensor([[[0.3, 0.1, 2.0], [-0.5, -0.2, 5.0]], [[0.1, 0.2, 1.0], [NAN, NAN, NAN]]], dtype=torch.float64)
SIGMA = torch.tensor([0.01, 0.02, 0.1] * 2, dtype=torch.float64)
CRB = torch.diag(SIGMA.square()).expand(2, 6, 6)
ALL = torch.ones(2, dtype=torch.bool)
EPS = torch.finfo(torch.float64).eps


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


def test_each_coordinate_has_its_own_error_with_its_sign():
    judged = _judged(shift=(0.01, -0.02, 0.25))
    # A difference of numbers below 8 rounds once in their last place.
    for name, shift in (("azimuth", 0.01), ("elevation", -0.02), ("range", 0.25)):
        assert vars(judged)[name][0].tolist() == pytest.approx([shift] * 2, abs=8 * EPS), name
        assert vars(judged)[name].isnan().tolist() == [[False, False], [False, True]], name
    moved = to_cartesian(*(PTR + torch.tensor([0.01, -0.02, 0.25])).unbind(-1)) - to_cartesian(*PTR.unbind(-1))
    assert judged.position[0].tolist() == pytest.approx(moved.norm(dim=-1)[0].tolist(), rel=1e-6)
    over = judged.position / position_bound(PTR, CRB)
    assert judged.over_bound[0].tolist() == over[0].tolist()


# Four scenes of one or two sources; one of scene 1 is missed, and scene 3 is of no chosen group.
PRESENT = [[True, True], [True, True], [True, False], [True, True]]
AZIMUTH = [[0.1, -0.3], [0.5, NAN], [-0.7, NAN], [90.0, 90.0]]
ELEVATION = [[-0.2, 0.4], [-0.6, NAN], [0.9, NAN], [90.0, 90.0]]
RANGE = [[1.0, -3.0], [-4.0, NAN], [7.0, NAN], [90.0, 90.0]]
POSITION = [[2.0, 5.0], [6.0, NAN], [8.0, NAN], [90.0, 90.0]]
OVER = [[1.5, 2.5], [30.0, NAN], [3.5, NAN], [90.0, 90.0]]
FOUND, STRICTLY, CHOSEN = [True, False, True, True], [True, False, False, False], [True, True, True, False]


def _by_hand():
    fields = (torch.tensor(v, dtype=torch.float64) for v in (AZIMUTH, ELEVATION, RANGE, POSITION, OVER))
    return Errors(*fields, torch.tensor(FOUND), torch.tensor(STRICTLY))


def test_the_figures_of_a_group_are_those_of_its_own_errors():
    ptr = torch.ones(4, 2, 3).masked_fill(~torch.tensor(PRESENT)[..., None], NAN)
    figures = summary(_by_hand(), ptr, torch.tensor(CHOSEN))
    expected = {
        "scenes": 3,
        "azimuth_rmse": math.sqrt((0.01 + 0.09 + 0.25 + 0.49) / 4),
        "elevation_rmse": math.sqrt((0.04 + 0.16 + 0.36 + 0.81) / 4),
        "range_rmse": math.sqrt((1 + 9 + 16 + 49) / 4),
        "position_rmse": math.sqrt((4 + 25 + 36 + 64) / 4),
        # Only scenes 0 and 2 are found.
        "error_over_bound_found": math.sqrt((1.5**2 + 2.5**2 + 3.5**2) / 3),
        # Of 1.5, 2.5, 3.5 and 30.
        "error_over_bound_median": 3.0,
        "found": 2 / 3,
        "found_strictly": 1 / 3,
        "missed": 1 / 5,
    }
    # Sums of four squares, each rounded once, and a root.
    assert figures == pytest.approx(expected, rel=8 * EPS)


def test_figures_that_no_scene_gives_are_none():
    ptr = torch.ones(4, 2, 3).masked_fill(~torch.tensor(PRESENT)[..., None], NAN)
    judged = _by_hand()
    figures = summary(judged, ptr, torch.tensor([False, True, False, False]))
    assert (figures["error_over_bound_found"], figures["error_over_bound_median"]) == (None, 30.0)
    missed = Errors(*torch.full((5, 4, 2), NAN), judged.found, judged.found_strictly)
    figures = summary(missed, ptr, torch.tensor(CHOSEN))
    assert {name for name, value in figures.items() if value is None} == {
        "azimuth_rmse", "elevation_rmse", "range_rmse", "position_rmse", "error_over_bound_found",
        "error_over_bound_median",
    }  # fmt: skip
    assert figures["missed"] == 1


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


def test_capture_counts_as_many_eigenvectors_as_there_are_sources():
    array = ArrayConfig(horizontal=4, vertical=3)
    a = steering(array, *PTR[1, 0].unbind(-1))
    a = a / a.norm()
    across = torch.linalg.svd(a[:, None])[0][:, 1]
    # The strongest eigenvector holds nothing of the only source, the second, which would be a second source's, all.
    R = 2 * torch.outer(across, across.conj()) + torch.outer(a, a.conj())
    assert float(subspace_capture(R[None], PTR[1:], array)) == pytest.approx(0, abs=1e-12)
    assert float(subspace_capture(R[None], PTR[1:].expand(1, 2, 3).nan_to_num(1.0), array)) > 0.5
