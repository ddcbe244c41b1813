"""The public entry: oracle scenes, accepted forms, a model's path, and one clear error for bad input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import ris_verified as rv
from ris_verified.array.steering import steering
from ris_verified.config import ArrayConfig, Config, EstimateConfig, SceneConfig
from ris_verified.covariance.predicted import pack_factor
from ris_verified.errors import InputError, NonFiniteError, ShapeError
from ris_verified.estimate.match import match
from ris_verified.estimate.search import greedy_search
from ris_verified.model.output import ModelOutput
from ris_verified.pipeline import Pipeline

LOUD = Config(scene=SceneConfig(snr_db_min=20.0, snr_db_max=20.0, sources_max=2))


def _oracle_input(scene):
    return scene["y"], scene["H_full"], scene["codes"]


def _within(estimates, scene, bounds):
    ptr = torch.from_numpy(np.stack([scene["azimuth"], scene["elevation"], scene["range"]], -1))[None]
    pairs = match(estimates.azimuth, estimates.elevation, estimates.range, ptr)
    assert pairs.misses.item() == pairs.false_alarms.item() == 0
    found = torch.stack([estimates.azimuth, estimates.elevation, estimates.range], -1)[0, pairs.estimate_index[0]]
    sigma = torch.from_numpy(scene["crb"]).diagonal().sqrt().unflatten(-1, (-1, 3))
    return bool(((found - ptr[0]).abs() <= bounds * sigma).all())


class Oracle(nn.Module):
    """A model that knows the answer: exact factors, and logits of the true order."""

    def __init__(self, truth):
        super().__init__()
        present = torch.isfinite(truth.ptr).all(-1)
        place = torch.where(present[..., None], truth.ptr, torch.ones_like(truth.ptr))
        A = (steering(truth.cfg.array, *place.unbind(-1)) * present[..., None]).mT.to(torch.complex64)
        self.angle, self.range = pack_factor(A), pack_factor(torch.ones_like(A))
        self.logits = torch.nn.functional.one_hot(truth.K - 1, truth.cfg.scene.sources_max).float()
        self.dropout = nn.Dropout()
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, y, H, C, H_full):
        self.seen.append((self.training, torch.is_grad_enabled()))
        self.received = y, H, C, H_full
        most = self.logits.shape[-1]
        return ModelOutput(self.angle, self.range, self.logits, torch.zeros(len(y), most, 2), torch.zeros(len(y), most))


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("known", [True, False])
def test_every_source_of_an_oracle_scene_lies_within_four_bounds(oracle, index, known):
    scene = oracle(index)
    count = len(scene["azimuth"])
    estimates = rv.localize(*_oracle_input(scene), Config(), order=count if known else None)
    assert estimates.order.tolist() == [count]
    assert estimates.blend is None
    assert _within(estimates, scene, 4.0)


class TestAcceptedForms:
    @pytest.fixture
    def truth(self, drawn):
        return drawn(LOUD, 2)

    def test_numpy_torch_and_real_pairs_agree(self, truth):
        expected = rv.localize(*truth.measurement, LOUD, order=truth.K)
        forms = (
            tuple(v.numpy() for v in truth.measurement),
            tuple(torch.view_as_real(v) for v in truth.measurement),
            tuple(torch.view_as_real(v).numpy() for v in truth.measurement),
        )
        for form in forms:
            found = rv.localize(*form, LOUD, order=truth.K)
            assert torch.equal(torch.nan_to_num(found.range), torch.nan_to_num(expected.range))

    def test_a_scene_without_batch_axis_is_a_batch_of_one(self, truth):
        one = rv.localize(*(v[0] for v in truth.measurement), LOUD, order=int(truth.K[0]))
        batch = rv.localize(*(v[:1] for v in truth.measurement), LOUD, order=truth.K[:1])
        assert one.azimuth.shape == (1, 2)
        assert one.covariance.shape == (1, 6, 6)
        assert torch.equal(torch.nan_to_num(one.azimuth), torch.nan_to_num(batch.azimuth))

    def test_single_precision_finds_the_same_sources(self, truth):
        double = rv.localize(*truth.measurement, LOUD, order=truth.K)
        single = rv.localize(*(v.to(torch.complex64) for v in truth.measurement), LOUD, order=truth.K)
        sigma = double.covariance.diagonal(dim1=-2, dim2=-1).sqrt()[:, ::3]
        assert (torch.nan_to_num((single.azimuth - double.azimuth) / sigma).abs() < 0.05).all()

    def test_what_asks_a_head_where_there_is_one_counts_nested_fits_without(self, truth):
        auto = dataclasses.replace(LOUD, estimate=EstimateConfig(order_criterion="auto"))
        found, expected = (rv.localize(*truth.measurement, cfg) for cfg in (auto, LOUD))
        assert found.order.tolist() == expected.order.tolist()
        assert torch.equal(torch.nan_to_num(found.range), torch.nan_to_num(expected.range))

    def test_the_input_is_left_alone(self, truth):
        before = [v.clone() for v in truth.measurement]
        rv.localize(*truth.measurement, LOUD, order=1)
        assert all(torch.equal(a, b) for a, b in zip(before, truth.measurement, strict=True))


class TestWithAModel:
    @pytest.fixture
    def truth(self, drawn):
        return drawn(LOUD, 4)

    @pytest.mark.parametrize("criterion", ["model", "auto"])
    def test_a_perfect_model_finds_the_sources_and_its_blend_travels(self, truth, criterion):
        cfg = dataclasses.replace(LOUD, estimate=EstimateConfig(order_criterion=criterion))
        model = Oracle(truth)
        estimates = rv.localize(*truth.measurement, cfg, model=model)
        assert estimates.order.tolist() == truth.K.tolist()
        sigma = estimates.covariance.diagonal(dim1=-2, dim2=-1).sqrt().unflatten(-1, (-1, 3))
        pairs = match(estimates.azimuth, estimates.elevation, estimates.range, truth.ptr)
        index = pairs.estimate_index.clamp_min(0)
        for j, value in enumerate((estimates.azimuth, estimates.elevation)):
            ratio = (value.gather(1, index) - truth.ptr[..., j]) / sigma[..., j].gather(1, index)
            assert torch.nan_to_num(ratio).abs().max() < 5
        assert estimates.blend.beta == cfg.covariance.beta
        assert estimates.blend.R.shape == (4, 144, 144)
        assert estimates.blend.proof.holds.all()

    @pytest.mark.parametrize(("criterion", "asked"), [("marginal", 1), ("model", 0), ("auto", 0)])
    def test_who_is_asked_for_the_order(self, truth, criterion, asked):
        cfg, calls = dataclasses.replace(LOUD, estimate=EstimateConfig(order_criterion=criterion)), []

        def order(y, H_full, C, cfg):
            calls.append(len(y))
            return truth.K

        pipeline = dataclasses.replace(Pipeline.default(cfg), order=order)
        rv.localize(*truth.measurement, cfg, model=Oracle(truth), pipeline=pipeline)
        assert len(calls) == asked

    def test_peaks_are_sought_in_the_precision_of_the_network(self, truth):
        seen = []

        def spectrum(R, K, cfg):
            seen.append(R.dtype)
            return Pipeline.default(cfg).spectrum(R, K, cfg)

        pipeline = dataclasses.replace(Pipeline.default(LOUD), spectrum=spectrum)
        found = rv.localize(*truth.measurement, LOUD, order=truth.K, model=Oracle(truth), pipeline=pipeline)
        assert seen == [torch.complex64]
        assert found.azimuth.dtype == torch.float64

    def test_the_model_sees_what_training_showed_it(self, truth):
        model = Oracle(truth)
        rv.localize(*truth.measurement, LOUD, order=truth.K, model=model)
        y, H, C, H_full = model.received
        expected = torch.einsum("bmn,bln->blm", truth.H_full, truth.C)
        assert torch.allclose(torch.view_as_complex(H), expected.to(torch.complex64), rtol=0, atol=1e-5)
        assert {v.dtype for v in (y, H, C, H_full)} == {torch.float32}
        assert y.shape[-1] == C.shape[-1] == H_full.shape[-1] == 2

    @pytest.mark.parametrize("training", [True, False])
    def test_it_runs_in_evaluation_mode_without_gradient_and_is_restored(self, truth, training):
        model = Oracle(truth).train(training)
        rv.localize(*truth.measurement, LOUD, order=truth.K, model=model)
        assert model.seen == [(False, False)]
        assert model.training is model.dropout.training is training

    def test_a_model_that_raises_is_restored_too(self, truth):
        model = Oracle(truth).train()
        model.dropout.eval()
        model.logits = None
        with pytest.raises(AttributeError):
            rv.localize(*truth.measurement, LOUD, order=truth.K, model=model)
        assert (model.training, model.dropout.training) == (True, False)

    def test_switches_take_their_stage_out(self, truth):
        found = {}
        for name, estimate in {
            "all": EstimateConfig(),
            "no newton": EstimateConfig(newton_nearfield=False, mle=False),
            "no mle": EstimateConfig(mle=False),
        }.items():
            cfg = dataclasses.replace(LOUD, estimate=estimate)
            found[name] = rv.localize(*truth.measurement, cfg, order=truth.K, model=Oracle(truth))
            assert torch.isfinite(found[name].covariance[:, 0, 0]).all()
        azimuth = [torch.nan_to_num(f.azimuth) for f in found.values()]
        assert not torch.equal(azimuth[0], azimuth[2])
        assert not torch.equal(azimuth[1], azimuth[2])

    def test_the_mle_switch_holds_without_a_model_too(self, truth):
        off = dataclasses.replace(LOUD, estimate=EstimateConfig(mle=False))
        kept, refined = (rv.localize(*truth.measurement, cfg, order=truth.K) for cfg in (off, LOUD))
        searched = greedy_search(*truth.measurement, truth.K, off)
        assert torch.equal(torch.nan_to_num(kept.range), torch.nan_to_num(searched.range))
        assert not torch.equal(torch.nan_to_num(kept.range), torch.nan_to_num(refined.range))

    def test_the_stages_are_those_of_the_pipeline_it_is_given(self, truth):
        asked = []

        def order(y, H_full, C, cfg):
            asked.append(len(y))
            return torch.ones(len(y), dtype=torch.int64)

        pipeline = dataclasses.replace(Pipeline.default(LOUD), order=order)
        for model in (None, Oracle(truth)):
            estimates = rv.localize(*truth.measurement, LOUD, model=model, pipeline=pipeline)
            assert estimates.order.tolist() == [1] * 4
        assert asked == [4, 4]


class TestBadInput:
    @pytest.fixture
    def given(self, drawn):
        return list(drawn(LOUD, 2).measurement)

    def _raises(self, kind, given, cfg=LOUD, **options):
        with pytest.raises(kind) as caught:
            rv.localize(*given, cfg, **options)
        assert caught.value.where
        return caught.value

    @pytest.mark.parametrize(("place", "name"), [(0, "y"), (1, "H_full"), (2, "C")])
    @pytest.mark.parametrize("bad", [complex("nan"), complex("inf")])
    def test_nan_names_argument_and_scene(self, given, place, name, bad):
        given[place] = given[place].clone()
        given[place][1, 0, 0] = bad
        assert self._raises(NonFiniteError, given).where == f"{name}[1]"

    @pytest.mark.parametrize(("place", "name"), [(0, "y"), (1, "H_full"), (2, "C")])
    def test_a_wrong_size_names_the_argument(self, given, place, name):
        given[place] = given[place][:, :, :-1]
        assert self._raises(ShapeError, given).where == name

    def test_other_scene_sizes_name_what_to_set(self, given):
        error = self._raises(ShapeError, given, Config(scene=SceneConfig(snapshots=8)))
        assert "scene.snapshots" in error.remedy

    def test_batches_of_different_length(self, given):
        given[1] = given[1][:1]
        self._raises(ShapeError, given)

    @pytest.mark.parametrize("kind", [np.int64, object, bool])
    def test_a_wrong_dtype(self, given, kind):
        given[0] = np.ones(given[0].shape, dtype=kind)
        assert self._raises(ShapeError, given).where == "y"

    @pytest.mark.parametrize("order", [0, 3, -1, 1.5, torch.tensor([1, 1, 1]), torch.tensor([1, 9])])
    def test_an_impossible_order(self, given, order):
        assert self._raises(InputError, given, order=order).where == "order"

    def test_the_k_head_needs_a_model(self, given):
        cfg = dataclasses.replace(LOUD, estimate=EstimateConfig(order_criterion="model"))
        self._raises(InputError, given, cfg)

    def test_an_order_that_is_no_number(self, given):
        for order in ("3", [1, [2]], 1j):
            assert self._raises(InputError, given, order=order).where == "order"

    def test_no_scene_at_all(self, given):
        assert self._raises(ShapeError, [value[:0] for value in given]).where == "y"


def _same(first, second):
    names = ("azimuth", "elevation", "range", "covariance")
    return all(torch.equal(vars(first)[n].nan_to_num(), vars(second)[n].nan_to_num()) for n in names)


def test_conjugated_views_and_graphs_are_as_good_as_their_values(drawn):
    given = drawn(LOUD, 2).measurement
    views = [value.conj().resolve_conj().conj() for value in given]
    assert all(view.is_conj() for view in views)
    views[0].requires_grad_()
    assert _same(rv.localize(*given, LOUD), rv.localize(*views, LOUD))


@pytest.mark.parametrize("power", [-40, -80, 60])
def test_the_units_of_the_measurement_do_not_matter(drawn, power):
    y, H, C = drawn(LOUD, 4).measurement
    found, scaled = (rv.localize(y * 2.0**p, H * 2.0**p, C, LOUD) for p in (0, power))
    assert torch.equal(found.order, scaled.order)
    sigma = found.covariance.diagonal(dim1=1, dim2=2).sqrt().unflatten(1, (-1, 3))
    for name, bound in (("azimuth", sigma[..., 0]), ("range", sigma[..., 2])):
        apart = (vars(found)[name] - vars(scaled)[name]).abs()
        # NF-MLE rests within a hundredth of one sigma.
        assert bool((apart.nan_to_num() <= 0.02 * bound.nan_to_num(1.0)).all())


def test_a_tikhonov_weight_stays_in_the_units_that_it_was_given_in(drawn):
    cfg = dataclasses.replace(LOUD, estimate=EstimateConfig(mle_ridge=2.0**-60))
    y, H, C = drawn(cfg, 2).measurement
    # Beside a channel of this size the same weight pulls all symbols to zero.
    near, pulled = rv.localize(y, H, C, cfg), rv.localize(y, H * 2.0**-40, C, cfg)
    assert not _same(near, pulled)


def test_codes_of_any_strength_find_what_unit_ones_find(drawn):
    cfg = dataclasses.replace(LOUD, scene=dataclasses.replace(LOUD.scene, sources_min=2))
    y, H, C = drawn(cfg, 6).measurement
    strong, weak = rv.localize(y, H, C, cfg), rv.localize(y * 0.125, H, C * 0.125, cfg)
    assert torch.equal(strong.order, weak.order)
    sigma = strong.covariance.diagonal(dim1=1, dim2=2).sqrt().unflatten(1, (-1, 3))[..., 0]
    assert bool(((strong.azimuth - weak.azimuth).abs() <= 0.02 * sigma).all())


@pytest.mark.parametrize(("horizontal", "vertical"), [(12, 1), (1, 12), (3, 1), (1, 1)])
def test_a_line_of_elements_gives_no_covariance_and_no_error(drawn, horizontal, vertical):
    array = ArrayConfig(horizontal=horizontal, vertical=vertical)
    cfg = Config(array=array, scene=SceneConfig(snr_db_min=20.0, snr_db_max=20.0, sources_max=1))
    found = rv.localize(*drawn(cfg, 3).measurement, cfg)
    assert torch.isfinite(found.azimuth).all()
    assert torch.isnan(found.covariance).all()
