"""Matching estimates to the truth on cases worked out by hand."""

from __future__ import annotations

import itertools

import pytest
import torch

from ris_verified.array.geometry import to_cartesian
from ris_verified.estimate.match import match

NAN = float("nan")
TRUTH = torch.tensor([[0.1, 0.0, 2.0], [-0.4, 0.2, 5.0], [0.7, -0.3, 1.0], [NAN, NAN, NAN], [NAN, NAN, NAN]]).double()


def _match(estimates, truth=TRUTH):
    return match(*torch.as_tensor(estimates, dtype=torch.float64)[None].unbind(-1), truth[None])


class TestMatch:
    def test_the_truth_itself_in_another_order(self):
        pairs = _match(TRUTH[[2, 0, 4, 1, 3]])
        assert pairs.estimate_index[0].tolist() == [1, 3, 0, -1, -1]
        assert torch.equal(pairs.distance[0, :3], torch.zeros(3, dtype=torch.float64))
        assert torch.isnan(pairs.distance[0, 3:]).all()
        assert pairs.misses.item() == pairs.false_alarms.item() == 0

    def test_too_few_estimates_are_misses(self):
        pairs = _match(TRUTH[[1, 3]])
        assert pairs.estimate_index[0].tolist() == [-1, 0, -1, -1, -1]
        assert (pairs.misses.item(), pairs.false_alarms.item()) == (2, 0)

    def test_too_many_estimates_are_false_alarms(self):
        extra = torch.tensor([[0.9, 0.4, 9.0], [0.0, 0.5, 8.0]]).double()
        pairs = _match(torch.cat([extra, TRUTH[:3]]))
        assert pairs.estimate_index[0].tolist() == [2, 3, 4, -1, -1]
        assert (pairs.misses.item(), pairs.false_alarms.item()) == (0, 2)

    def test_no_estimate_at_all(self):
        pairs = _match(torch.full((5, 3), NAN))
        assert pairs.estimate_index[0].tolist() == [-1] * 5
        assert (pairs.misses.item(), pairs.false_alarms.item()) == (3, 0)

    def test_the_sum_is_the_smallest_of_all_permutations(self):
        generator = torch.Generator().manual_seed(3)
        truth = torch.rand(5, 3, generator=generator, dtype=torch.float64) + 0.1
        estimates = torch.rand(5, 3, generator=generator, dtype=torch.float64) + 0.1
        t, e = to_cartesian(*truth.unbind(-1)), to_cartesian(*estimates.unbind(-1))
        sums = [float((t - e[list(order)]).norm(dim=-1).sum()) for order in itertools.permutations(range(5))]
        assert float(_match(estimates, truth).distance.sum()) == pytest.approx(min(sums), rel=1e-12)

    def test_distance_is_in_metres_and_not_in_angles(self):
        # Both estimates differ from the truth by the same angle, at 1 m and at 9 m.
        truth = torch.tensor([[0.0, 0.0, 1.0], [0.5, 0.0, 9.0]]).double()
        pairs = _match(truth + torch.tensor([0.01, 0.0, 0.0]), truth)
        chord = 2 * torch.sin(torch.tensor(0.005).double())
        assert torch.allclose(pairs.distance[0], torch.stack([chord, 9 * chord]), rtol=1e-6)

    def test_single_precision_and_mixed_batches(self):
        truth = torch.stack([TRUTH, TRUTH.roll(1, 0)]).float()
        pairs = match(*truth[..., :].unbind(-1), truth)
        assert pairs.estimate_index.tolist() == [[0, 1, 2, -1, -1], [-1, 1, 2, 3, -1]]
        assert pairs.estimate_index.dtype == pairs.misses.dtype == torch.int64
