"""Cells, order shares and capture of an evaluation, from records made by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ris_verified.config import ArrayConfig, Config, DataConfig, SceneConfig
from ris_verified.covariance.capture import subspace_capture
from ris_verified.data.dataset import SceneDataset
from ris_verified.data.generate import generate
from ris_verified.evaluate.metrics import Errors
from ris_verified.evaluate.run import _cells, _Chunk, _order, evaluate
from ris_verified.model.network import build_model
from ris_verified.pipeline import Pipeline

EPS = np.finfo(float).eps


def _joined(K, snr, head=None, residual=None):
    K, snr = torch.tensor(K), torch.tensor(snr)
    ptr = torch.ones(len(K), 2, 3).masked_fill((torch.arange(2) >= K[:, None])[..., None], math.nan)
    # Each scene's errors are its own power of two, so that a mean tells which scenes it is of.
    error = ptr[..., 0].double() * 2.0 ** torch.arange(len(K))[:, None]
    found = torch.arange(len(K)) % 2 == 0
    record = Errors(error, 3 * error, 5 * error, 7 * error, 11 * error, found, ~found)
    guesses = [K if guess is None else torch.tensor(guess) for guess in (head, residual)]
    return _Chunk({"mle": record}, {}, *guesses, ptr, K, snr)


def _labels(lowest, highest, snr):
    scene = SceneConfig(sources_min=1, sources_max=1, snr_db_min=lowest, snr_db_max=highest)
    cells = _cells(_joined([1] * len(snr), snr), scene)
    return [(*cell["snr_db"], cell["methods"]["mle"]["scenes"]) for cell in cells]


@pytest.mark.parametrize(
    ("lowest", "highest", "expected"),
    [
        (-5.0, 20.0, [(-5, 0), (0, 5), (5, 10), (10, 15), (15, 20)]),
        (-5.0, 18.0, [(-5, 0), (0, 5), (5, 10), (10, 15), (15, 18)]),
        (0.0, 3.0, [(0, 3)]),
        (1.1, 16.1, [(1.1, 6.1), (6.1, 11.1), (11.1, 16.1)]),
        (10.0, 10.0, [(10, 10)]),
        (0.7, 0.7, [(0.7, 0.7)]),
    ],
)
def test_the_edge_in_the_record_groups_the_scenes_and_the_last_cell_ends_where_the_range_does(
    lowest, highest, expected
):
    # Both ends of the range are drawn, and each inner edge belongs to the cell that it opens.
    inner = [low for low, _ in expected[1:]]
    middles = [(low + high) / 2 for low, high in expected]
    found = _labels(lowest, highest, [lowest, *inner, *middles, highest])
    counts = [2] * (len(expected) - 1) + [3]
    # An edge is the lowest value and a few multiples of 5 dB, each sum rounded once.
    assert [count for *_, count in found] == counts
    assert np.allclose([edges for *edges, _ in found], expected, rtol=4 * EPS, atol=0)
    assert found[0][0] == lowest
    assert found[-1][1] == highest


def test_a_cell_holds_the_figures_of_its_own_scenes():
    scene = SceneConfig(sources_min=1, sources_max=2, snr_db_min=-5.0, snr_db_max=5.0)
    joined = _joined(
        K=[1, 2, 2, 1, 2, 2],
        snr=[-5.0, -1.0, -2.0, 5.0, 0.0, 4.0],
        head=[1, 2, 1, 2, 1, 1],
        residual=[2, 1, 1, 1, 2, 1],
    )
    cells = _cells(joined, scene)
    assert [(c["K"], c["snr_db"], c["order_head"], c["order_residual"]) for c in cells] == [
        (1, [-5, 0], 1.0, 0.0),
        (1, [0, 5], 0.0, 1.0),
        (2, [-5, 0], 0.5, 0.0),
        (2, [0, 5], 0.0, 0.5),
    ]
    members = [[0], [3], [1, 2], [4, 5]]
    for cell, scenes in zip(cells, members, strict=True):
        figures = cell["methods"]["mle"]
        rms = math.sqrt(np.mean([4.0**i for i in scenes]))
        assert figures["scenes"] == len(scenes)
        assert figures["azimuth_rmse"] == pytest.approx(rms, rel=4 * EPS)
        assert figures["position_rmse"] == pytest.approx(7 * rms, rel=4 * EPS)
        assert figures["found"] == np.mean([i % 2 == 0 for i in scenes])


def test_an_order_is_right_only_where_it_is_equal():
    joined = _joined(K=[1, 1, 2, 2, 2, 1, 2, 2], snr=[-3.0, 0.0, 5.0, 8.0, -0.5, 9.0, 20.0, 1.0])
    # Too few in scene 2, too many in 1 and 3; right in the others.
    guess = torch.tensor([1, 2, 1, 3, 2, 1, 2, 2])
    found = _order(guess, joined)
    # At 0 dB and above stand the scenes 1, 2, 3, 5, 6 and 7, of which the last three are right.
    assert found == {"all": 5 / 8, "at_least_0_db": 1 / 2, "by_K": {"1": pytest.approx(2 / 3), "2": 3 / 5}}


def test_where_no_scene_reaches_0_db_there_is_no_share_above_it():
    assert _order(torch.tensor([1, 2]), _joined(K=[1, 1], snr=[-3.0, -0.1])) == {
        "all": 0.5,
        "at_least_0_db": None,
        "by_K": {"1": 0.5},
    }


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """Evaluate 7 scenes of a small panel with a configuration of other numbers of sources and other SNRs."""
    array = ArrayConfig(horizontal=4, vertical=3)
    scene = SceneConfig(antennas=8, snapshots=6, sources_max=2, snr_db_min=22.0, snr_db_max=29.0)
    sizes = DataConfig(train_scenes=1, validation_scenes=1, test_scenes=7, shard_scenes=7, workers=1)
    drawn, folder = Config(seed=5, array=array, scene=scene, data=sizes), tmp_path_factory.mktemp("evaluated")
    generate(drawn, folder / "data")
    asked = replace(drawn, scene=replace(scene, sources_min=2, snr_db_min=-5.0, snr_db_max=20.0))
    pipeline = Pipeline.default(asked)
    model = build_model(asked.replaced({"seed": 6})).eval()
    evaluate(pipeline, model, folder / "data", folder)
    return pipeline, model, folder


def test_cells_cover_every_scene_of_data_drawn_from_other_ranges(evaluated):
    figures = json.loads((evaluated[2] / "evaluation.json").read_text())
    assert sum(cell["methods"]["mle"]["scenes"] for cell in figures["cells"]) == figures["scenes"] == 7
    assert {tuple(cell["snr_db"]) for cell in figures["cells"]} == {(22, 27), (27, 29)}
    assert {cell["K"] for cell in figures["cells"]} == {1, 2}


def test_each_capture_is_of_the_matrix_that_it_is_named_after(evaluated):
    pipeline, model, folder = evaluated
    batch = SceneDataset(folder / "data", "test").batch(torch.arange(7))
    inputs = batch.y, batch.H, batch.C, batch.H_full
    with torch.no_grad():
        trained, start = (pipeline.infer(m, *inputs)[1] for m in (model, build_model(pipeline.config).eval()))
    matrices = {
        "R_samp": trained.R_samp,
        "R_pred": trained.R_pred,
        "R_blend": trained.R,
        "R_blend_untrained": start.R,
    }
    expected = {
        name: float(subspace_capture(R, batch.ptr, pipeline.config.array).mean()) for name, R in matrices.items()
    }
    assert len(set(expected.values())) == 4
    # Proposals searched in the same single precision: the same sums of the same numbers.
    found = json.loads((folder / "evaluation.json").read_text())["subspace_capture"]
    assert found == pytest.approx(expected, rel=64 * float(np.finfo(np.float32).eps))
