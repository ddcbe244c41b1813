"""Events for TensorBoard: what is written is read back by TensorBoard's own reader; without it nothing changes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ris_verified.config import Config
from ris_verified.covariance.capture import subspace_capture
from ris_verified.data.batch import Batch
from ris_verified.data.dataset import draw_batch
from ris_verified.errors import InputError
from ris_verified.pipeline import Pipeline
from ris_verified.train.board import FOLDER, REMEDY, Board
from ris_verified.train.portrait import Portrait, capture_figure, portrait, spectrum_figure, telling_scene

TINY = [
    "array.horizontal=6", "array.vertical=4", "scene.antennas=8", "scene.snapshots=6", "scene.sources_max=3",
    "model.channels=8", "model.width=16", "model.layers=1", "model.heads=2", "model.head_width=16",
    "model.head_layers=1", "model.dictionary_azimuth=8", "model.dictionary_elevation=4", "model.dictionary_range=2",
    "model.dropout=0.5", "estimate.grid_azimuth=16", "estimate.grid_elevation=8", "estimate.grid_range=4",
]  # fmt: skip
LOSSES = {1: 0.5, 2: "nan", 3: 0.25}


def _pipeline() -> Pipeline:
    return Pipeline.default(Config.load(None, TINY))


def _record(step: int, loss: float | str = 0.5) -> dict[str, Any]:
    skipped = isinstance(loss, str)
    return {
        "step": step, "loss": loss, "nmse": loss, "gradient_norm": loss, "terms": {} if skipped else {"angle": 2.0},
        "learning_rates": {"backbone": 1e-3, "head": 4e-3}, "skipped": skipped,
    }  # fmt: skip


def _epoch(step: int) -> dict[str, Any]:
    held = {"loss": 0.5, "nmse": 0.25, "capture": 0.75, "order": 1.0}
    return {"epoch_end": {"epoch": 1, "step": step, "train": 0.5, "rate": 1e-3, "skipped": 1, "validation": held}}


def _read(folder: Path) -> Any:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder / FOLDER), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events


def _series(events: Any, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_without_the_package_there_is_one_error_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="tensorboard") as caught:
        Board(tmp_path)
    assert caught.value.remedy == REMEDY == "pip install tensorboard"
    assert not list(tmp_path.iterdir())


def test_every_figure_of_the_log_can_be_read_back(tmp_path):
    pytest.importorskip("tensorboard")
    board = Board(tmp_path)
    board.hear([_record(step, loss) for step, loss in LOSSES.items()])
    board.hear([_epoch(3)])
    board.close()
    events = _read(tmp_path)
    assert set(events.Tags()["scalars"]) == {
        "step/loss", "step/nmse", "step/gradient_norm", "step/skipped", "term/angle", "rate/backbone", "rate/head",
        "epoch/train loss", "epoch/skipped so far",
        "validation/loss", "validation/nmse", "validation/capture", "validation/order",
    }  # fmt: skip
    assert _series(events, "step/skipped") == [(1, 0.0), (2, 1.0), (3, 0.0)]
    np.testing.assert_equal(_series(events, "step/loss"), [(1, 0.5), (2, np.nan), (3, 0.25)])
    assert _series(events, "term/angle") == [(1, 2.0), (3, 2.0)]
    assert _series(events, "validation/capture") == [(3, 0.75)]


def test_a_run_that_goes_on_repeats_no_step(tmp_path):
    pytest.importorskip("tensorboard")
    first = Board(tmp_path)
    first.hear([_record(step, 0.5) for step in (1, 2, 3, 4)])
    first.hear([_epoch(4)])
    first.close()
    # From a checkpoint of step 2.
    again = Board(tmp_path)
    again.hear([_record(step, 0.25) for step in (3, 4)])
    again.hear([_epoch(4)])
    again.close()
    events = _read(tmp_path)
    assert _series(events, "step/loss") == [(1, 0.5), (2, 0.5), (3, 0.25), (4, 0.25)]
    assert _series(events, "validation/capture") == [(4, 0.75)]


def test_figures_are_pictures_in_the_events(tmp_path):
    pytest.importorskip("tensorboard")
    pipeline = _pipeline()
    board = Board(tmp_path)
    seen = portrait(pipeline, pipeline.build_model(pipeline.config), draw_batch(pipeline.config, 8, 3))
    board.hear([_record(1)])
    board.figures(1, seen)
    board.close()
    events = _read(tmp_path)
    for tag in ("spectrum", "capture by sources"):
        (picture,) = events.Images(tag)
        assert picture.step == 1
        assert picture.encoded_image_string.startswith(b"\x89PNG")
    for k, held in seen.capture.items():
        assert _series(events, f"capture/{k} sources") == [(1, pytest.approx(held["R_blend"]))]


class TestPortrait:
    def _seen(self, batch: Batch | None = None, **stages: Any) -> tuple[Portrait, Batch]:
        pipeline = dataclasses.replace(_pipeline(), **stages)
        batch = draw_batch(pipeline.config, 12, 5) if batch is None else batch
        return portrait(pipeline, pipeline.build_model(pipeline.config), batch), batch

    def test_the_scene_has_several_sources_and_the_highest_snr_of_those(self):
        _, batch = self._seen()
        one = telling_scene(batch)
        assert batch.K[one] > 1
        assert batch.snr[one] == batch.snr[batch.K > 1].max()
        alone = batch.split(12)[int((batch.K == 1).nonzero()[0])]
        assert telling_scene(alone) == 0

    def test_nothing_is_drawn_at_random_and_the_mode_is_kept(self):
        pipeline = _pipeline()
        model, batch = pipeline.build_model(pipeline.config).train(), draw_batch(pipeline.config, 6, 5)
        before = torch.get_rng_state()
        first, second = (portrait(pipeline, model, batch) for _ in range(2))
        # A run with figures trains the same weights as one without: dropout draws the same numbers.
        assert torch.equal(before, torch.get_rng_state())
        assert model.training
        assert first.capture == second.capture

    def test_the_truth_is_where_the_spectrum_of_the_truth_is_highest(self):
        def true_blend(R_pred, R_samp, cfg):
            return dataclasses.replace(sound.blend(R_pred, R_samp, cfg), R=batch.R_in)

        sound = _pipeline()
        batch = draw_batch(sound.config, 12, 5)
        seen, _ = self._seen(batch, blend=true_blend)
        eps = torch.finfo(torch.float32).eps
        # MUSIC on the true covariance stands at the cell of each source, or the next one.
        level = seen.spectra["R_blend"]
        assert level.shape == (len(seen.elevation), len(seen.azimuth)) == (8, 16)
        for azimuth, elevation in seen.truth:
            v, h = np.abs(seen.elevation - elevation).argmin(), np.abs(seen.azimuth - azimuth).argmin()
            near = level[max(0, v - 1) : v + 2, max(0, h - 1) : h + 2]
            assert near.max() > np.median(level)
        v, h = np.unravel_index(level.argmax(), level.shape)
        away = np.abs(seen.truth - [seen.azimuth[h], seen.elevation[v]]).max(1).min()
        assert away < max(np.diff(seen.azimuth).max(), np.diff(seen.elevation).max())
        assert all(held["R_blend"] == pytest.approx(1, abs=4 * eps * 24) for held in seen.capture.values())

    def test_capture_is_that_of_each_number_of_sources(self):
        pipeline = _pipeline()
        seen, batch = self._seen()
        R = pipeline.sample_covariance(batch.y, batch.H_full, batch.C, pipeline.config)
        held = subspace_capture(R, batch.ptr, pipeline.config.array)
        assert sum(seen.scenes.values()) == 12
        for k, figures in seen.capture.items():
            mine = held[torch.eq(batch.K, k)]
            assert seen.scenes[k] == len(mine)
            assert seen.chance[k] == k / 24
            assert figures["R_samp"] == pytest.approx(float(mine.mean()), rel=1e-6)

    def test_figures_show_what_was_measured(self):
        seen, _ = self._seen()
        top = spectrum_figure(seen).axes[0]
        rings = top.collections[1].get_offsets()
        np.testing.assert_allclose(rings, np.degrees(seen.truth))
        bars = [bar.get_height() for bar in capture_figure(seen).axes[0].patches]
        assert bars == [held[name] for name in ("R_blend", "R_samp") for _, held in sorted(seen.capture.items())]


def test_places_of_a_portrait_are_those_of_the_grid():
    cfg = _pipeline().config
    seen = portrait(_pipeline(), _pipeline().build_model(cfg), draw_batch(cfg, 4, 1))
    eps = torch.finfo(torch.float32).eps
    # Uniform in the sine, inside the view.
    np.testing.assert_allclose(np.diff(np.sin(seen.azimuth)), np.diff(np.sin(seen.azimuth))[0], rtol=eps * 16 * 4)
    assert np.abs(seen.elevation).max() < cfg.scene.elevation_max
    assert seen.azimuth.shape == (cfg.estimate.grid_azimuth,)
    assert seen.elevation.shape == (cfg.estimate.grid_elevation,)
