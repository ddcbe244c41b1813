"""The curves of an evaluation's picture."""

from __future__ import annotations

import pytest

from ris_verified.evaluate import plots
from ris_verified.evaluate.methods import METHODS
from ris_verified.evaluate.plots import SHOWN, _against_snr, draw_evaluation

KEYS = "found_strictly", "position_rmse", "error_over_bound_median"


def _cell(K, snr_db, scenes, value):
    # Each method and each figure has a factor of its own; powers of two keep the sums exact.
    rows = {
        name: {"scenes": scenes, "found": 99.0}
        | {key: None if value is None else value * 2.0**i * 8.0**j for j, key in enumerate(KEYS)}
        for i, name in enumerate(METHODS)
    }
    return {"K": K, "snr_db": snr_db, "methods": rows}


FIGURES = {
    "labels": METHODS,
    "subspace_capture": {"R_samp": 0.25, "R_pred": 0.5, "R_blend": 0.75, "R_blend_untrained": 0.125},
    "cells": [
        _cell(1, [-5.0, 0.0], 3, 2.0),
        _cell(1, [15.0, 18.0], 5, 7.0),
        _cell(2, [-5.0, 0.0], 1, 10.0),
        _cell(2, [0.0, 5.0], 4, None),
        _cell(2, [15.0, 18.0], 2, None),
    ],
}  # fmt: skip
# (3·2 + 1·10)/4 at −2.5 dB, nothing known at 2.5 dB, K = 1 alone at 16.5 dB.
CURVE = ([-2.5, 16.5], [4.0, 7.0])


def test_a_curve_is_the_mean_over_all_scenes_of_an_snr():
    assert _against_snr(FIGURES, "music_R_samp", "found_strictly") == CURVE


def test_a_fixed_snr_is_one_point_at_its_value():
    fixed = {"cells": [_cell(1, [10.0, 10.0], 3, 2.0), _cell(2, [10.0, 10.0], 1, 6.0)]}
    assert _against_snr(fixed, "music_R_samp", "found_strictly") == ([10.0], [3.0])


def test_each_panel_shows_the_figure_and_the_methods_that_it_names(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(plots.Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    draw_evaluation(FIGURES, tmp_path / "evaluation.png")
    *panels, capture = drawn[0].axes
    titles = "found", "RMSE", "over bound"
    for j, (panel, title) in enumerate(zip(panels, titles, strict=True)):
        assert title in panel.get_title()
        curves = {line.get_label(): line for line in panel.lines}
        for name in SHOWN:
            x, y = curves[METHODS[name]].get_data()
            factor = 2.0 ** list(METHODS).index(name) * 8.0**j
            assert (list(x), list(y)) == (CURVE[0], pytest.approx([factor * value for value in CURVE[1]], rel=0, abs=0))
    assert [bar.get_height() for bar in capture.patches] == [0.25, 0.5, 0.75, 0.125]
    assert [label.get_text() for label in capture.get_xticklabels()] == list(FIGURES["subspace_capture"])
