"""The low-rank form of a blend is the blend."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ris_verified.config import Config, CovarianceConfig
from ris_verified.contracts import tolerance
from ris_verified.covariance.blend import blend
from ris_verified.covariance.low_rank import LowRank, blend_low_rank
from ris_verified.covariance.predicted import pack_factor, predicted_covariance
from ris_verified.covariance.sample import centred, least_squares_snapshots, sample_covariance
from ris_verified.errors import ShapeError


def _normal(*shape, dtype=torch.complex128):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(sum(shape)))


def _scene(cfg, dtype):
    s, N = cfg.scene, cfg.array.elements
    y, H, phase = _normal(2, s.snapshots, s.antennas), _normal(2, s.antennas, N), _normal(2, s.snapshots, N)
    return y.to(dtype), H.to(dtype) / N**0.5, (phase / phase.abs()).to(dtype)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("mode", ["product", "sum"])
@pytest.mark.parametrize(("beta", "loading"), [(0.3, 1e-3), (0.0, 0.5), (1.0, 1e-6)])
def test_a_blend_of_factors_is_the_blend_of_covariances(dtype, mode, beta, loading):
    cfg = Config(covariance=CovarianceConfig(beta=beta, loading=loading, factor_mode=mode, sum_weight=0.7))
    N, K = cfg.array.elements, cfg.scene.sources_max
    angle, distance = _normal(2, N, K).to(dtype), _normal(2, N, K).conj().to(dtype)
    scene = _scene(cfg, dtype)
    dense = blend(
        predicted_covariance(pack_factor(angle), pack_factor(distance), cfg), sample_covariance(*scene, cfg), cfg
    ).R
    factor = angle * distance if mode == "product" else torch.cat([angle, 0.7**0.5 * distance], -1)
    low = blend_low_rank(factor, centred(least_squares_snapshots(*scene, cfg), cfg), cfg)
    assert low.factor.shape[-1] == factor.shape[-1] + cfg.scene.snapshots
    # Two sums of N entries are normalised apart in the two forms.
    assert ((low.dense() - dense).norm(dim=(1, 2)) <= tolerance(dtype, N) * dense.norm(dim=(1, 2))).all()
    assert torch.allclose(low.floor, torch.full_like(low.floor, loading / (1 + loading)))


def test_gradients_pass_through_the_prediction_only():
    cfg = Config()
    factor, snapshots = _normal(2, 144, 5).requires_grad_(), _normal(2, 16, 144).requires_grad_()
    low = blend_low_rank(factor, snapshots, cfg)
    (low.factor.real.sum() + low.floor.sum()).backward()
    assert factor.grad is not None
    assert factor.grad.abs().max() > 0
    assert snapshots.grad is None


@pytest.mark.parametrize(
    ("factor", "floor"),
    [
        (torch.zeros(2, 4, 4, dtype=torch.complex64), torch.ones(2)),
        (torch.zeros(2, 4, 1), torch.ones(2)),
        (torch.zeros(2, 4, 1, dtype=torch.complex64), torch.ones(3)),
        (torch.zeros(2, 4, 1, dtype=torch.complex64), torch.ones(2, dtype=torch.int64)),
    ],
)
def test_a_form_that_does_not_fit_is_one_clear_error(factor, floor):
    with pytest.raises(ShapeError):
        LowRank(factor, floor)


def test_a_low_rank_form_is_frozen():
    low = LowRank(torch.zeros(2, 4, 1, dtype=torch.complex64), torch.ones(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        low.floor = torch.zeros(2)
