"""The three covariances and the bound against independently computed scenes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ris_verified.config import Config
from ris_verified.covariance.blend import blend
from ris_verified.covariance.predicted import pack_factor, predicted_covariance
from ris_verified.covariance.sample import centred, centring_survival, least_squares_snapshots, sample_covariance
from ris_verified.data.dataset import draw_batch
from ris_verified.errors import InvariantError, ShapeError
from ris_verified.estimate.bound import cramer_rao_bound
from ris_verified.model.output import ModelOutput
from ris_verified.pipeline import Pipeline

BOUNDS = {torch.complex128: 1e-10, torch.complex64: 1e-5}
# The oracle stores its N × N matrices in complex64, so they carry eps/2 of rounding themselves.
STORED = 2 * torch.finfo(torch.float32).eps


def _tensors(scene, dtype, *names):
    real = torch.float64 if dtype == torch.complex128 else torch.float32
    values = (torch.from_numpy(scene[name]) for name in names)
    return [value.to(dtype if value.is_complex() else real)[None] for value in values]


def _relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("index", range(5))
class TestAgainstTheOracles:
    def test_least_squares_snapshots(self, oracle, index, dtype):
        scene, cfg = oracle(index), Config()
        y, H, C, expected = _tensors(scene, dtype, "y", "H_full", "codes", "snapshots_ls_centered")
        assert _relative(centred(least_squares_snapshots(y, H, C, cfg), cfg), expected) <= BOUNDS[dtype]

    def test_sample_covariance_and_blend(self, oracle, index, dtype):
        scene, cfg = oracle(index), Config()
        y, H, C, factors = _tensors(scene, dtype, "y", "H_full", "codes", "factors")
        R_samp = sample_covariance(y, H, C, cfg)
        R_pred = predicted_covariance(pack_factor(factors), pack_factor(torch.ones_like(factors)), cfg)
        bound = max(BOUNDS[dtype], STORED)
        assert _relative(R_samp[0], torch.from_numpy(scene["R_samp"])) <= bound
        assert _relative(blend(R_pred, R_samp, cfg).R[0], torch.from_numpy(scene["R_blend"])) <= bound

    def test_cramer_rao_bound(self, oracle, index, dtype):
        scene = oracle(index)
        arguments = _tensors(scene, dtype, "azimuth", "elevation", "range", "symbols", "H_full", "codes")
        bound = cramer_rao_bound(*arguments, float(scene["noise_variance"]), Config())
        assert _relative(bound[0], torch.from_numpy(scene["crb"])) <= BOUNDS[dtype]


def test_constant_symbols_lose_all_energy_to_centring_and_take_the_joint_form(oracle):
    varying = Config()
    constant = Config.load(None, ["scene.symbols=constant"])
    y, H, C = _tensors(oracle(1), torch.complex128, "y_clean", "H_full", "codes")
    snapshots = least_squares_snapshots(y, H, C, varying)
    assert 0.5 < float(centring_survival(snapshots)) <= 1
    assert float(centring_survival(snapshots[:, :1].expand(-1, 16, -1))) == pytest.approx(0, abs=1e-12)
    joint = least_squares_snapshots(y, H, C, constant)
    assert joint.shape == (1, 1, 144)
    assert torch.linalg.matrix_rank(sample_covariance(y, H, C, constant)[0]) == 1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda y, H, C: (y[0], H, C), "y"),
        (lambda y, H, C: (y.real, H, C), "y"),
        (lambda y, H, C: (y, H[:, :, :100], C), "100"),
        (lambda y, H, C: (y, H, C[:, :3]), "3, 144"),
    ],
)
def test_wrong_shapes_raise_one_error_that_names_both(oracle, change, named):
    y, H, C = _tensors(oracle(0), torch.complex128, "y", "H_full", "codes")
    with pytest.raises(ShapeError, match=named):
        sample_covariance(*change(y, H, C), Config())


def test_one_snapshot_has_no_mean_to_subtract(oracle):
    y, H, C = _tensors(oracle(0), torch.complex128, "y", "H_full", "codes")
    with pytest.raises(ShapeError, match=r"snapshots: .*covariance\.centre = false"):
        sample_covariance(y[:, :1], H, C[:, :1], Config())
    assert sample_covariance(y[:, :1], H, C[:, :1], Config().replaced({"covariance.centre": False})).isfinite().all()


def test_broken_laws_raise_and_can_be_switched_off(oracle):
    factors = torch.zeros(2, 1440)
    with pytest.raises(InvariantError, match=r"R_pred\[0\].*trace"):
        predicted_covariance(factors, factors, Config())
    silent = predicted_covariance(factors, factors, Config(contracts=False))
    assert torch.isnan(torch.view_as_real(silent)).all()


@pytest.mark.parametrize("symbols", ["varying", "constant"])
@pytest.mark.parametrize("panel", [2, 12])
def test_the_smallest_ridge_is_solved_in_single_precision(symbols, panel):
    cfg = Config.load(overrides=[
        f"array.horizontal={panel}", f"array.vertical={panel}", f"scene.symbols={symbols}", "covariance.ridge=1e-12",
        "scene.sources_max=3",
    ])  # fmt: skip
    batch = draw_batch(cfg, 3, 1)
    assert torch.isfinite(torch.view_as_real(sample_covariance(batch.y, batch.H_full, batch.C, cfg))).all()


def test_no_scene_has_no_covariance():
    batch = draw_batch(Config(), 1, 1)
    assert sample_covariance(batch.y[:0], batch.H_full[:0], batch.C[:0], Config()).shape == (0, 144, 144)


def test_a_sample_covariance_that_carries_a_gradient_is_refused_in_training():
    batch, gain = draw_batch(Config(), 2, 1), torch.ones((), requires_grad=True)

    def learned(y, H_full, C, cfg):
        return sample_covariance(y, H_full, C, cfg) * gain

    pipeline = dataclasses.replace(Pipeline.default(), sample_covariance=learned)
    flat = torch.randn(2, 1440, generator=torch.Generator().manual_seed(0))
    outputs = ModelOutput(flat, flat, torch.zeros(2, 5), torch.zeros(2, 5, 2), torch.zeros(2, 5))
    with pytest.raises(InvariantError, match="R_samp: requires a gradient"):
        pipeline.covariances(outputs, batch)
    off = dataclasses.replace(pipeline, config=dataclasses.replace(Config(), contracts=False))
    assert not off.covariances(outputs, batch).R.requires_grad
