"""Precision, recall, order and bounds of a cell from estimates made by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ris_verified.config import Config
from ris_verified.estimate.result import Estimates, Peaks
from ris_verified.evaluate.axes import Cell
from ris_verified.evaluate.cell import Found, bounds, distances, figures, localised, prepared
from ris_verified.evaluate.interval import share
from ris_verified.evaluate.metrics import Errors, position_bound
from ris_verified.pipeline import Pipeline

CFG = Config().replaced({"scene.sources_max": 3})
PIPELINE = Pipeline.default(CFG)
CELL = Cell(2, 20.0, 2.0, 0.5, {})
SCENES = prepared(PIPELINE, [CELL.scene(CFG, index) for index in range(4)])
NAN = math.nan


def _estimates(place: torch.Tensor) -> Estimates:
    order = torch.isfinite(place[..., 0]).sum(-1)
    return Estimates(*place.unbind(-1), order, torch.full((len(place), 9, 9), NAN))


def _judged(place: torch.Tensor) -> dict[str, dict[str, float | None]]:
    found = Found(_estimates(place), Peaks(*SCENES.ptr.unbind(-1)))
    return figures(PIPELINE, found, SCENES, 1.0, np.random.default_rng(0))


def test_the_truth_scores_perfectly():
    judged = _judged(SCENES.ptr)
    for name in ("precision", "recall", "order", "found", "found_strictly"):
        assert judged[name]["value"] == 1, name
    for name in ("position_rmse", "azimuth_rmse", "gospa", "error_over_bound_median"):
        assert judged[name]["value"] == pytest.approx(0, abs=1e-12), name


def test_a_missing_source_lowers_recall_and_a_spurious_one_precision():
    place = SCENES.ptr.clone()
    place[0, 1] = NAN
    place[1, 2] = torch.tensor([-0.9, 0.4, 9.0])
    judged = _judged(place)
    # 8 sources, 8 estimates, 7 pairs.
    assert judged["recall"] == vars(share(7, 8))
    assert judged["precision"] == vars(share(7, 8))
    assert judged["order"] == vars(share(2, 4))
    assert judged["gospa"]["value"] == pytest.approx(2 * math.sqrt(0.5) / 4)


def test_an_estimate_beyond_the_cutoff_is_both():
    place = SCENES.ptr.clone()
    place[2, 0, 2] += 1.5
    judged = _judged(place)
    assert judged["recall"] == judged["precision"] == vars(share(7, 8))
    assert judged["order"]["value"] == 1
    assert judged["gospa"]["value"] == pytest.approx(1 / 4)


def test_estimates_without_order_and_nan_rows_have_no_points():
    nothing = torch.full_like(SCENES.ptr, NAN)
    assert [d.missed for d in distances(_estimates(nothing), SCENES.ptr, 2.0)] == [2] * 4
    judged = _judged(nothing)
    assert judged["precision"] == {"value": None, "low": None, "high": None}
    assert judged["recall"]["value"] == 0


def test_bounds_are_root_mean_squares_over_sources():
    found = bounds(SCENES)
    each = position_bound(SCENES.ptr, SCENES.crb)[:, :2]
    assert found["position"] == pytest.approx(float(each.square().mean().sqrt()), rel=1e-12)
    flat = SCENES.ptr[..., 2] * SCENES.ptr[..., 1].cos()
    sigma = torch.diagonal(SCENES.crb, dim1=-2, dim2=-1).unflatten(-1, (-1, 3)).sqrt()
    again = (flat * sigma[..., 0]).square() + (SCENES.ptr[..., 2] * sigma[..., 1]).square() + sigma[..., 2].square()
    assert found["position"] == pytest.approx(float(again.nanmean().sqrt()), rel=1e-12)


def test_each_accuracy_is_of_its_own_errors():
    # Two sources in each of four scenes, one of scene 1 missed; scenes 0 and 3 are found, scene 0 strictly, too.
    over = torch.tensor([[1.0, 2.0], [50.0, NAN], [70.0, 5.0], [3.0, 4.0]], dtype=torch.float64)
    found, strictly = torch.tensor([True, False, False, True]), torch.tensor([True, False, False, False])
    judged = Errors(-0.1 * over, 0.2 * over, 3 * over, 7 * over, over, found, strictly)
    pipeline = replace(PIPELINE, metric=lambda *_: judged)
    both = Found(_estimates(SCENES.ptr), Peaks(*SCENES.ptr.unbind(-1)))
    values = {n: f["value"] for n, f in figures(pipeline, both, SCENES, 1.0, np.random.default_rng(0)).items()}
    rms = math.sqrt((1 + 4 + 2500 + 4900 + 25 + 9 + 16) / 7)
    expected = {
        "azimuth_rmse": 0.1 * rms,
        "elevation_rmse": 0.2 * rms,
        "range_rmse": 3 * rms,
        "position_rmse": 7 * rms,
        "error_over_bound_found": math.sqrt((1 + 4 + 9 + 16) / 4),
        "error_over_bound_median": 4.0,
        "found": 2 / 4,
        "found_strictly": 1 / 4,
    }
    # Sums of seven squares and a root.
    assert {name: values[name] for name in expected} == pytest.approx(expected, rel=16 * np.finfo(float).eps)


def test_the_number_of_sources_is_given_only_where_it_was_guessed_wrong():
    asked = []

    def localize(y, H_full, C, cfg, order=None, model=None, pipeline=None):
        asked.append(order)
        K = torch.tensor([2, 1, 2, 3]) if order is None else order
        place = torch.full((len(y), 3, 3), 0.1 if order is None else 0.2)
        return Estimates(*place.masked_fill((torch.arange(3) >= K[:, None])[..., None], NAN).unbind(-1), K, y.real)

    found = localised(replace(PIPELINE, localize=localize), None, SCENES)
    assert asked[0] is None
    assert asked[1].tolist() == [2, 2]
    assert torch.isfinite(found.known.range).sum(-1).tolist() == [2, 2, 2, 2]
    assert found.known.range[:, 0].tolist() == pytest.approx([0.1, 0.2, 0.1, 0.2])
    assert found.free.order.tolist() == [2, 1, 2, 3]


def test_without_a_model_what_would_ask_its_head_counts_by_the_marginal_likelihood():
    scenes = prepared(PIPELINE, [Cell(3, 3.0, 2.0, 0.5, {}).scene(CFG, index) for index in range(4)])
    orders = {}
    for criterion in ("model", "marginal", "bic"):
        pipeline = Pipeline.default(CFG.replaced({"estimate.order_criterion": criterion}))
        orders[criterion] = localised(pipeline, None, scenes).free.order.tolist()
    assert orders["model"] == orders["marginal"] != orders["bic"]
