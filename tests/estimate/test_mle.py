"""NF-MLE: what any estimator stage owes, and this one against the bound."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ris_verified.config import Config, EstimateConfig, SceneConfig
from ris_verified.estimate import mle
from ris_verified.estimate.bound import cramer_rao_bound
from ris_verified.estimate.match import match
from ris_verified.estimate.measurement import Measurement
from ris_verified.estimate.mle import nf_mle, snr_db
from ris_verified.estimate.parameters import limits, to_parameters, widened
from ris_verified.estimate.projection import fit, objective
from ris_verified.estimate.result import Peaks

LOUD = Config(scene=SceneConfig(snr_db_min=25.0, snr_db_max=25.0, sources_max=3))


def _near(truth, spread=0.02, seed=0):
    # A start a fraction of a main lobe away from the truth.
    noise = torch.randn(truth.ptr.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    azimuth, elevation, distance = truth.ptr.unbind(-1)
    a, b, c = (spread * noise).unbind(-1)
    return Peaks(azimuth + a, elevation + b, 1 / (1 / distance + c).clamp(0.1, 2.0))


def _deviation(estimates):
    return torch.diagonal(estimates.covariance, dim1=-2, dim2=-1).sqrt().unflatten(-1, (-1, 3))


def _error(estimates, ptr):
    return torch.stack([estimates.azimuth, estimates.elevation, estimates.range], -1) - ptr


class EstimatorContract:
    """What every estimator stage (Peaks, y, H_full, C, cfg → Estimates) must do."""

    estimate = None

    @pytest.mark.parametrize("symbols", ["varying", "constant"])
    def test_the_objective_never_rises(self, drawn, symbols):
        cfg = dataclasses.replace(LOUD, scene=dataclasses.replace(LOUD.scene, symbols=symbols))
        truth = drawn(cfg, 6)
        start = _near(truth)
        end = self.estimate(start, *truth.measurement, cfg)
        data = Measurement.of(*truth.measurement, cfg)
        before = objective(to_parameters(start), data)
        after = objective(to_parameters(Peaks(end.azimuth, end.elevation, end.range)), data)
        assert (after <= before * (1 + 1e3 * torch.finfo(before.dtype).eps)).all()
        assert (after < before).any()

    def test_a_noiseless_measurement_gives_the_truth(self, drawn):
        cfg = Config(scene=SceneConfig(snr_db_min=200.0, snr_db_max=200.0, sources_max=2))
        truth = drawn(cfg, 6)
        end = self.estimate(_near(truth, 0.005), *truth.measurement, cfg)
        error = _error(end, truth.ptr)[torch.isfinite(truth.ptr)]
        assert error.abs().max() < 1e-6

    def test_the_error_is_what_its_own_covariance_says(self, drawn):
        truth = drawn(LOUD, 24)
        end = self.estimate(_near(truth), *truth.measurement, LOUD)
        ratio = (_error(end, truth.ptr) / _deviation(end))[torch.isfinite(truth.ptr)]
        # n ratios of unit variance: their RMS is one within 4/√(2n), loosely as they are correlated.
        assert 0.75 < ratio.square().mean().sqrt() < 1.3
        assert ratio.abs().max() < 5

    def test_the_covariance_is_the_bound_at_the_truth_up_to_noise(self, drawn):
        truth = drawn(LOUD, 8)
        end = self.estimate(_near(truth), *truth.measurement, LOUD)
        bound = cramer_rao_bound(
            *truth.ptr.unbind(-1), truth.symbols, *truth.measurement[1:], truth.noise_variance, LOUD
        )
        ratio = end.covariance.diagonal(dim1=-2, dim2=-1) / bound.diagonal(dim1=-2, dim2=-1)
        ratio = ratio[torch.isfinite(ratio)]
        assert len(ratio) == 3 * int(truth.K.sum())
        assert ratio.log().abs().median() < 0.2

    def test_order_padding_and_symmetry(self, drawn):
        truth = drawn(LOUD, 8)
        end = self.estimate(_near(truth), *truth.measurement, LOUD)
        assert end.order.dtype == torch.int64
        assert end.order.tolist() == truth.K.tolist()
        absent = torch.isnan(truth.ptr[..., 0])
        assert torch.equal(torch.isnan(end.azimuth), absent)
        gone = absent.repeat_interleave(3, -1)
        assert torch.equal(torch.isnan(end.covariance), gone[:, None] | gone[:, :, None])
        assert torch.equal(torch.nan_to_num(end.covariance), torch.nan_to_num(end.covariance.mT))

    def test_a_batch_gives_what_its_scenes_give_alone(self, drawn):
        truth = drawn(LOUD, 4)
        start = _near(truth)
        whole = self.estimate(start, *truth.measurement, LOUD)
        for b in range(4):
            one = Peaks(*(v[b : b + 1] for v in vars(start).values()))
            alone = self.estimate(one, *(v[b : b + 1] for v in truth.measurement), LOUD)
            step = (alone.azimuth - whole.azimuth[b : b + 1]) / _deviation(whole)[b : b + 1, :, 0]
            assert torch.nan_to_num(step).abs().max() < 1e-3

    def test_below_the_threshold_the_peaks_come_back_unrefined(self, drawn):
        cfg = dataclasses.replace(LOUD, estimate=EstimateConfig(mle_snr_threshold_db=60.0))
        truth = drawn(cfg, 3)
        start = _near(truth)
        end = self.estimate(start, *truth.measurement, cfg)
        assert torch.equal(torch.nan_to_num(end.azimuth), torch.nan_to_num(start.azimuth))
        refined = self.estimate(start, *truth.measurement, LOUD)
        assert not torch.allclose(refined.azimuth, end.azimuth, equal_nan=True)


class TestNfMle(EstimatorContract):
    estimate = staticmethod(nf_mle)


def test_how_many_scenes_are_held_at_once_changes_nothing(drawn, monkeypatch):
    truth = drawn(LOUD, 7)
    start = _near(truth)
    whole = nf_mle(start, *truth.measurement, LOUD)
    monkeypatch.setattr(mle, "WIDE", 2)
    parts = nf_mle(start, *truth.measurement, LOUD)
    for name in ("azimuth", "elevation", "range"):
        one, other = vars(whole)[name], vars(parts)[name]
        sigma = _deviation(whole)[..., ("azimuth", "elevation", "range").index(name)]
        # Both end within `CLOSE` of a sigma of the optimum.
        assert torch.nan_to_num((one - other) / sigma).abs().max() <= 2 * mle.CLOSE
    assert torch.allclose(_deviation(whole), _deviation(parts), rtol=10 * mle.CLOSE, equal_nan=True)
    kept = nf_mle(start, *truth.measurement, LOUD.replaced({"estimate.mle_snr_threshold_db": 60.0}))
    assert torch.equal(torch.nan_to_num(kept.azimuth), torch.nan_to_num(start.azimuth))


@pytest.mark.parametrize("index", range(4))
def test_from_near_the_truth_an_oracle_scene_is_located_within_four_bounds(oracle, index):
    scene, cfg = oracle(index), Config()
    ptr = torch.stack([torch.from_numpy(scene[n]) for n in ("azimuth", "elevation", "range")], -1)[None]
    start = Peaks(ptr[..., 0] + 0.01, ptr[..., 1] - 0.01, 1 / (1 / ptr[..., 2] + 0.02).clamp(0.1, 2.0))
    y, H, C = (torch.from_numpy(scene[name])[None] for name in ("y", "H_full", "codes"))
    end = nf_mle(start, y, H, C, cfg)
    bound = torch.from_numpy(scene["crb"]).diagonal().sqrt().unflatten(-1, (-1, 3))
    assert (_error(end, ptr)[0].abs() <= 4 * bound).all()


def test_noise_and_snr_are_estimated_without_bias(drawn):
    cfg = Config(scene=SceneConfig(snr_db_min=12.0, snr_db_max=12.0, sources_max=3))
    truth = drawn(cfg, 60)
    data = Measurement.of(*truth.measurement, cfg)
    start = to_parameters(Peaks(*truth.ptr.unbind(-1)))
    # At the truth only the symbols were fitted, so the true degrees of freedom lack the 3K/2.
    parts = [(fit(start[k == truth.K, :k], data.only(k == truth.K)), k) for k in (1, 2, 3)]
    snr = torch.cat([snr_db(done, data.only(k == truth.K)) for done, k in parts])
    ratio = torch.cat([done.noise_variance / truth.noise_variance[k == truth.K] for done, k in parts])
    # One variance estimate has a relative deviation of about 1/√(256 − 17.5 K); the positions' 3K/2 add below 3 %.
    assert abs(float(ratio.mean()) - 1) < 0.03 + 4 / (60 * 200) ** 0.5
    assert abs(float(snr.mean()) - 12.0) < 0.5


def test_constant_symbols_are_one_set_for_all_snapshots(drawn):
    cfg = Config(scene=SceneConfig(symbols="constant", snr_db_min=30.0, snr_db_max=30.0, sources_max=2))
    truth = drawn(cfg, 3)
    chosen = truth.K == 2
    data = Measurement.of(*(value[chosen] for value in truth.measurement), cfg)
    found = fit(to_parameters(Peaks(*truth.ptr[chosen].unbind(-1))), data)
    assert found.symbols.shape == (int(chosen.sum()), 1, 2)
    assert found.residual.shape == (int(chosen.sum()), 1, 256)
    assert (found.symbols - truth.symbols[chosen, :1]).abs().max() < 0.2


def test_sources_that_begin_at_one_place_are_separated(drawn):
    cfg = Config(scene=SceneConfig(snr_db_min=20.0, snr_db_max=20.0, sources_min=2, sources_max=2))
    truth = drawn(cfg, 6)
    start = Peaks(*(value[:, :1].expand(-1, 2).clone() for value in truth.ptr.unbind(-1)))
    end = nf_mle(start, *truth.measurement, cfg)
    pairs = match(end.azimuth, end.elevation, end.range, truth.ptr)
    found = torch.stack([end.azimuth, end.elevation], -1).gather(1, pairs.estimate_index[..., None].expand(-1, -1, 2))
    # A quarter of the main lobe's half-width 2/12.
    assert (found - truth.ptr[..., :2]).abs().max() < 0.04


def test_a_source_that_explains_as_little_as_noise_moves_to_a_missing_one(drawn, monkeypatch):
    cfg = Config(scene=SceneConfig(snr_db_min=10.0, snr_db_max=10.0, sources_min=3, sources_max=3))
    truth = drawn(cfg, 24)
    azimuth, elevation, distance = (value.clone() for value in truth.ptr.unbind(-1))
    # A quarter of the view away in both angles, the others where they are.
    azimuth[:, 2] -= azimuth[:, 2].sign() * cfg.scene.azimuth_max / 2
    elevation[:, 2] -= elevation[:, 2].sign() * cfg.scene.elevation_max / 2
    crb = cramer_rao_bound(*truth.ptr.unbind(-1), truth.symbols, *truth.measurement[1:], truth.noise_variance, cfg)
    sigma = torch.diagonal(crb, dim1=-2, dim2=-1).unflatten(-1, (-1, 3)).sqrt()[..., :2]

    def found():
        end = nf_mle(Peaks(azimuth, elevation, distance), *truth.measurement, cfg)
        index = match(end.azimuth, end.elevation, end.range, truth.ptr).estimate_index
        angles = torch.stack([end.azimuth, end.elevation], -1).gather(1, index[..., None].expand(-1, -1, 2))
        return ((angles - truth.ptr[..., :2]).abs() <= 5 * sigma).all(-1).all(-1)

    with_exchange = found()
    monkeypatch.setattr(mle, "WEAK", -torch.inf)
    without = found()
    assert (with_exchange >= without).all()
    assert with_exchange.sum() >= 5 > without.sum()


def test_an_exchange_that_ends_worse_is_not_kept(drawn, monkeypatch):
    truth = drawn(LOUD, 8)
    start = _near(truth)
    without = nf_mle(start, *truth.measurement, LOUD)
    tried = []

    def astray(now, data, field):
        low, high = limits(LOUD, now.parameters)
        there = now.parameters.clone()
        there[:, 0] = low + high - there[:, 0]
        tried.append(len(there))
        return fit(there, data, now.given_load(data))

    monkeypatch.setattr(mle, "exchanged", astray)
    monkeypatch.setattr(mle, "WEAK", torch.inf)
    astray_and_back = nf_mle(start, *truth.measurement, LOUD)
    assert sum(tried) == 8
    for name in ("azimuth", "elevation", "range"):
        one, other = (torch.nan_to_num(vars(made)[name]) for made in (without, astray_and_back))
        assert torch.equal(one, other), name


def test_the_tikhonov_weight_keeps_symbols_small_and_the_estimate_near(drawn):
    truth = drawn(LOUD, 6)
    start = to_parameters(_near(truth))[truth.K.max() == truth.K, : int(truth.K.max())]
    data = Measurement.of(*(value[truth.K.max() == truth.K] for value in truth.measurement), LOUD)
    sizes = []
    for weight in (0.0, 0.1, 10.0):
        cfg = dataclasses.replace(LOUD, estimate=EstimateConfig(mle_ridge=weight))
        done = fit(start, dataclasses.replace(data, cfg=cfg))
        # The least of ‖y − Bs‖² + λ‖s‖² is yᴴy − yᴴBs: two routes to one number.
        fitted = (done.columns @ done.symbols[..., None])[..., 0]
        assert torch.allclose(done.rss, data.energy - (data.y.conj() * fitted).real.sum((1, 2)), rtol=1e-9)
        sizes.append(done.symbols.abs().square().sum())
    assert sizes[0] > sizes[1] > sizes[2]
    lightly = dataclasses.replace(LOUD, estimate=EstimateConfig(mle_ridge=1e-3))
    one, other = (nf_mle(_near(truth), *truth.measurement, cfg) for cfg in (LOUD, lightly))
    assert torch.nan_to_num((one.azimuth - other.azimuth) / _deviation(one)[..., 0]).abs().max() < 0.2


def test_a_range_at_its_limit_stays_there_in_double_precision():
    cfg = Config()
    low, high = limits(cfg, torch.zeros(1, dtype=torch.float32))
    double = limits(cfg, torch.zeros(1, dtype=torch.float64))
    # Rounded to single precision a limit may lie inside the view or outside.
    for narrow, wide in zip((low, high), double, strict=True):
        assert torch.equal(widened(narrow, cfg, torch.float64), wide)
    between = (low + high) / 3
    assert torch.equal(widened(between, cfg, torch.float64), between.double())


@pytest.mark.parametrize("snr", [20.0, 60.0, 100.0])
def test_sigma_is_the_bound_however_little_noise_there_is(drawn, snr):
    truth = drawn(Config(scene=SceneConfig(snr_db_min=snr, snr_db_max=snr, sources_max=2)), 12)
    end = nf_mle(_near(truth, 0.002), *truth.measurement, truth.cfg)
    bound = cramer_rao_bound(
        *truth.ptr.unbind(-1), truth.symbols, truth.H_full, truth.C, truth.noise_variance, truth.cfg
    )
    ratio = _deviation(end) / torch.diagonal(bound, dim1=-2, dim2=-1).sqrt().unflatten(-1, (-1, 3))
    # σ² is estimated from some two hundred real numbers: a twentieth, and four times that at most.
    assert bool(((ratio.nan_to_num(1.0) - 1).abs() < 0.2).all())
