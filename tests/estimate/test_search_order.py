"""Greedy search and order selection: contracts, and the oracle scenes with known and estimated order."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from ris_verified.config import Config, EstimateConfig, SceneConfig
from ris_verified.estimate import search
from ris_verified.estimate.linearised import linearised_gaussian
from ris_verified.estimate.match import match
from ris_verified.estimate.measurement import Measurement
from ris_verified.estimate.order import chosen_order, order_criterion
from ris_verified.estimate.parameters import to_parameters
from ris_verified.estimate.projection import fit, objective
from ris_verified.estimate.search import estimate_order, greedy_search, nested_search

LOUD = Config(scene=SceneConfig(snr_db_min=20.0, snr_db_max=20.0, sources_max=3))


class SearchContract:
    """What every search (y, H_full, C, K, cfg → Peaks) must do."""

    search = None

    def test_it_finds_every_source_of_loud_scenes(self, drawn):
        truth = drawn(LOUD, 8)
        peaks = self.search(*truth.measurement, truth.K, LOUD)
        pairs = match(peaks.azimuth, peaks.elevation, peaks.range, truth.ptr)
        assert pairs.misses.tolist() == pairs.false_alarms.tolist() == [0] * 8
        azimuth = peaks.azimuth.gather(1, pairs.estimate_index.clamp_min(0)) - truth.ptr[..., 0]
        elevation = peaks.elevation.gather(1, pairs.estimate_index.clamp_min(0)) - truth.ptr[..., 1]
        # A quarter of the main lobe's half-width 2/12.
        assert azimuth[torch.isfinite(truth.ptr[..., 0])].abs().max() < 0.04
        assert elevation[torch.isfinite(truth.ptr[..., 0])].abs().max() < 0.04

    def test_it_fits_as_well_as_the_truth(self, drawn):
        truth = drawn(LOUD, 8)
        peaks = self.search(*truth.measurement, truth.K, LOUD)
        data = Measurement.of(*truth.measurement, LOUD)
        at_truth = objective(torch.cat([truth.ptr[..., :2], 1 / truth.ptr[..., 2:]], -1), data)
        # The search ends in single precision and before convergence; 2 % of the noise is far below one basin.
        assert (objective(to_parameters(peaks), data) <= 1.02 * at_truth).all()

    def test_mixed_orders_are_padded_with_nan(self, drawn):
        truth = drawn(LOUD, 3)
        K = torch.tensor([2, 3, 1])
        peaks = self.search(*truth.measurement, K, LOUD)
        assert torch.isfinite(peaks.range).sum(-1).tolist() == K.tolist()
        assert peaks.range.dtype == torch.float64

    def test_constant_symbols(self, drawn):
        cfg = dataclasses.replace(LOUD, scene=dataclasses.replace(LOUD.scene, symbols="constant", sources_max=2))
        truth = drawn(cfg, 6)
        peaks = self.search(*truth.measurement, truth.K, cfg)
        data = Measurement.of(*truth.measurement, cfg)
        at_truth = objective(torch.cat([truth.ptr[..., :2], 1 / truth.ptr[..., 2:]], -1), data)
        assert (objective(to_parameters(peaks), data) <= 1.02 * at_truth).all()


class TestGreedySearch(SearchContract):
    search = staticmethod(greedy_search)


@pytest.mark.parametrize(("snr_db", "more"), [(0.0, 6), (20.0, 0)])
def test_faint_scenes_and_no_others_get_more_exchanges(drawn, monkeypatch, snr_db, more):
    cfg = Config(scene=SceneConfig(snr_db_min=snr_db, snr_db_max=snr_db, sources_min=3, sources_max=3))
    truth, thorough = drawn(cfg, 6), []

    def counted(now, data, field, effort=search.QUICK):
        thorough.append(len(now.rss) if effort == search.THOROUGH else 0)
        return exchanged(now, data, field, effort)

    exchanged = search.exchanged
    monkeypatch.setattr(search, "exchanged", counted)
    greedy_search(*truth.measurement, truth.K, cfg)
    assert sum(thorough) == more


def test_exchanges_after_the_first_project_nothing_out_again(drawn, monkeypatch):
    cfg = Config(scene=SceneConfig(sources_min=4, sources_max=4))
    truth, given = drawn(cfg, 24), []

    def seen(now, known, data, field, count):
        given.append(field.without)
        return best_exchanges(now, known, data, field, count)

    best_exchanges = search.best_exchanges
    monkeypatch.setattr(search, "best_exchanges", seen)
    greedy_search(*truth.measurement, truth.K, cfg)
    assert given[0] == 0
    assert len(given) > 1
    assert set(given[1:]) <= {0, 4}
    assert 4 in given


class OrderContract:
    """What every order stage (y, H_full, C, cfg → K) must do."""

    order = None

    @pytest.mark.parametrize("index", range(4))
    def test_the_order_of_an_oracle_scene(self, oracle, index):
        scene = oracle(index)
        y, H, C = (torch.from_numpy(scene[name])[None] for name in ("y", "H_full", "codes"))
        assert self.order(y, H, C, Config()).tolist() == [len(scene["azimuth"])]

    def test_it_is_mostly_right_on_loud_scenes_and_always_in_range(self, drawn):
        truth = drawn(LOUD, 16)
        K = self.order(*truth.measurement, LOUD)
        assert K.dtype == torch.int64
        assert K.min() >= 1
        assert K.max() <= LOUD.scene.sources_max
        assert int((truth.K == K).sum()) >= 14

    def test_noise_alone_is_the_smallest_order(self, drawn):
        truth = drawn(LOUD, 4)
        noise = torch.randn(truth.y.shape, dtype=truth.y.dtype, generator=torch.Generator().manual_seed(0))
        assert self.order(noise, *truth.measurement[1:], LOUD).tolist() == [1] * 4

    def test_the_scale_of_the_measurement_does_not_matter(self, drawn):
        truth = drawn(LOUD, 3)
        y, H, C = truth.measurement
        assert self.order(1e-4 * y, H, C, LOUD).tolist() == self.order(y, H, C, LOUD).tolist()


class TestEstimateOrder(OrderContract):
    order = staticmethod(estimate_order)


def test_nested_fits_add_a_source_at_a_time_and_say_how_they_fit(drawn):
    truth = drawn(LOUD, 6)
    nested = nested_search(*truth.measurement, LOUD)
    count = torch.isfinite(nested.parameters).all(-1).sum(-1)
    assert torch.equal(count, torch.arange(1, 4)[:, None].expand(3, 6))
    data = Measurement.of(*truth.measurement, LOUD)
    for k in range(3):
        # Sources too many may share a place, which single precision does not tell apart.
        scenes = k < truth.K
        place, part = nested.parameters[k, scenes, : k + 1].double(), data.only(scenes)
        assert torch.allclose(nested.residual[k, scenes].double(), objective(place, part), rtol=1e-3)
        # The load has settled: another round changes the likelihood by less than decides anything.
        settled = fit(place, part, linearised_gaussian(place, part).likelier_load)
        assert torch.allclose(nested.deviance[k, scenes].double(), settled.cost, atol=0.5)
    # What no source explains is far larger than noise at 20 dB.
    chosen = nested.residual[truth.K - 1, torch.arange(6)].double()
    assert (chosen < 2 * truth.noise_variance * data.rows).all()


@pytest.mark.parametrize(("symbols", "own"), [("varying", 16), ("constant", 1)])
def test_the_criteria_by_hand(symbols, own):
    # RSS of n = 512 real data with k = 1, 2: one set of symbols a source, or one a snapshot.
    residual = torch.tensor([[512.0], [256.0]]).double()
    for criterion, penalty in {
        "bic": lambda p: p * math.log(512),
        "aicc": lambda p: 2 * p + 2 * p * (p + 1) / (512 - p - 1),
    }.items():
        cfg = Config(scene=SceneConfig(symbols=symbols), estimate=EstimateConfig(order_criterion=criterion))
        value = order_criterion(residual, torch.zeros_like(residual), cfg)[:, 0]
        p = 3 + 2 * own
        assert float(value[0]) == pytest.approx(penalty(p))
        assert float(value[1]) == pytest.approx(512 * math.log(0.5) + penalty(2 * p))


@pytest.mark.parametrize(("symbols", "more"), [("varying", 0), ("constant", 2)])
def test_a_source_costs_the_choice_of_its_place(symbols, more):
    estimate = EstimateConfig(search_azimuth=6, search_elevation=4, search_range=5)
    cfg = Config(scene=SceneConfig(symbols=symbols), estimate=estimate)
    price = math.log(5 * 3 * 4) + more
    for gain, right in ((price - 0.1, 1), (price + 0.1, 2)):
        deviance = torch.tensor([[-10.0], [-10.0 - gain], [-10.0 - gain]])
        value = order_criterion(torch.ones(3, 1), deviance, cfg)[:, 0]
        assert value.tolist() == pytest.approx([2 * (float(d) + k * price) for k, d in enumerate(deviance, 1)])
        assert chosen_order(torch.ones(3, 1), deviance, cfg).tolist() == [right]


def test_the_criterion_changes_the_answer_where_a_source_is_weak():
    # A gain between the two penalties: 512 log(r) = 120 lies above AICc's step of 87 and below BIC's of 218.
    residual = torch.tensor([[math.exp(120 / 512)], [1.0]]).double()
    chosen = {
        name: int(chosen_order(residual, residual, Config(estimate=EstimateConfig(order_criterion=name))))
        for name in ("bic", "aicc")
    }
    assert chosen == {"bic": 1, "aicc": 2}


@pytest.mark.parametrize(("criterion", "order"), [("marginal", 2), ("model", 2), ("auto", 2), ("bic", 1)])
def test_who_would_ask_a_head_counts_nested_fits_by_the_marginal_likelihood(criterion, order):
    cfg = Config(estimate=EstimateConfig(order_criterion=criterion))
    assert chosen_order(torch.ones(2, 1), torch.tensor([[-10.0], [-100.0]]), cfg).tolist() == [order]
