"""The field of view's figures, with stages that return known numbers."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ris_verified.config import Config
from ris_verified.estimate.result import Estimates
from ris_verified.evaluate import view
from ris_verified.evaluate.axes import Axes
from ris_verified.evaluate.metrics import Errors
from ris_verified.evaluate.place import smallest_angle
from ris_verified.evaluate.view import MAP_AZIMUTHS, MAP_ELEVATIONS, error_map, spectrum_view
from ris_verified.pipeline import Pipeline
from ris_verified.scene.scene import scene_at

CFG = Config().replaced({"array.horizontal": 4, "array.vertical": 3, "scene.sources_max": 2, "scene.antennas": 4})
EPS = np.finfo(float).eps


def _nothing(y, *_, order=None, **__):
    places = torch.full((3, len(y), 2), math.nan)
    return Estimates(*places, torch.zeros(len(y), dtype=torch.int64), torch.full((len(y), 6, 6), math.nan))


def test_the_map_is_the_root_of_the_mean_square_over_the_scenes_of_a_direction():
    scenes = 2
    count = MAP_AZIMUTHS * MAP_ELEVATIONS * scenes
    error, bound = np.random.default_rng(0).random((2, count)) + 1
    asked, judged = itertools.count(), itertools.count()

    def limit(azimuth, *_):
        # Of range alone: the bound of a position is then that of its range.
        crb = torch.full((len(azimuth), 6, 6), math.nan, dtype=torch.float64)
        crb[:, :3, :3] = 0
        crb[:, 2, 2] = torch.tensor([bound[next(asked)] ** 2 for _ in azimuth])
        return crb

    def metric(_, estimate, ptr, crb):
        position = torch.tensor([[error[next(judged)], math.nan] for _ in ptr], dtype=torch.float64)
        sure = torch.ones(len(ptr), dtype=torch.bool)
        return Errors(*[100 + position] * 3, position, 100 + position, sure, sure)

    pipeline = replace(Pipeline.default(CFG), localize=_nothing, bound=limit, metric=metric)
    found = error_map(pipeline, Axes(snr_db=(0.0, 10.0, 30.0), map_scenes=scenes))
    shape = MAP_ELEVATIONS, MAP_AZIMUTHS, scenes
    for name, values in (("position_rmse", error), ("bound", bound)):
        expected = np.sqrt((values.reshape(shape) ** 2).mean(2))
        assert np.allclose(found[name], expected, rtol=8 * EPS, atol=0), name
    assert (found["scenes"], found["snr_db"]) == (scenes, 10.0)
    assert found["range"] == pytest.approx(math.sqrt(CFG.scene.range_min * CFG.scene.range_max), rel=2 * EPS)


def test_the_spectrum_is_of_the_hardest_scene_with_the_best_snr(monkeypatch):
    drawn = []
    monkeypatch.setattr(view, "scene_at", lambda *a, **k: drawn.append(scene_at(*a, **k)) or drawn[-1])
    pipeline = replace(Pipeline.default(CFG), localize=_nothing)
    axes = Axes(sources=(2, 1), snr_db=(0.0, 20.0, 10.0), separation=(0.6, 0.2, 0.4), range=(3.0, 5.0))
    found = spectrum_view(pipeline, None, axes)
    assert len(found.truth) == 2
    # Angles pass through unit vectors; each step rounds once.
    assert smallest_angle(*found.truth.T) == pytest.approx(0.2, abs=64 * EPS)
    assert (found.snr_db, found.range, len(found.found)) == (20.0, 3.0, 0)
    assert [(scene.snr_db, scene.range.tolist()) for scene in drawn] == [(20.0, [3.0, 3.0])]
