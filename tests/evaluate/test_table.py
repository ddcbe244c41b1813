"""The evaluation's sentences: a difference is claimed only where the scenes show one."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from ris_verified.evaluate.run import _difference, _differences
from ris_verified.evaluate.table import COLUMNS, learning_notes, method_rows, to_markdown


def _figures(differences):
    capture = {"R_samp": 0.1, "R_pred": 0.87, "R_blend": 0.86, "R_blend_untrained": 0.85}
    methods = {"mle": {"found": 0.93}, "classical": {"found": 0.92}}
    figures = {"subspace_capture": capture, "methods": methods, "cells": []}
    return figures if differences is None else {**figures, "differences": differences}


def _all(mean, error):
    names = "training_capture", "blend_capture", "learned_found"
    return {name: {"mean": mean, "standard_error": error} for name in names}


@pytest.mark.parametrize(
    ("mean", "error", "training", "found"),
    [
        (0.01, 0.004, "learning helps.", "learning helps."),
        (0.01, 0.006, "no difference that these scenes show.", "no difference that these scenes show."),
        (-0.01, 0.006, "no difference that these scenes show.", "no difference that these scenes show."),
        (0.0, 0.0, "no difference that these scenes show.", "no difference that these scenes show."),
        (-0.01, 0.004, "learning does not help.", "learning does not help the share found."),
        (0.5, None, "no difference that these scenes show.", "no difference that these scenes show."),
    ],
)
def test_what_is_within_chance_is_no_difference(mean, error, training, found):
    first, *middle, second, _ = learning_notes(_figures(_all(mean, error)))
    assert first.endswith(f": {training}")
    assert second.endswith(f": {found}")
    assert bool(middle) == (mean == -0.01 and error == 0.004)


def test_a_record_of_before_is_shown_without_a_verdict():
    first, second, _ = learning_notes(_figures(None))
    assert first.endswith("R_samp alone holds 0.100.")
    assert second.endswith("the greedy search.")


def test_differences_are_paired():
    hard = torch.linspace(0, 1, 100)
    paired = _difference(hard + 0.01, hard)
    assert paired["mean"] == pytest.approx(0.01)
    assert paired["standard_error"] < 1e-6
    apart = _difference(torch.tensor([True, True, False, True]), torch.tensor([False, True, True, True]))
    assert apart == {"mean": 0.0, "standard_error": pytest.approx((2 / 3) ** 0.5 / 2)}
    assert _difference(torch.ones(1), torch.zeros(1)) == {"mean": 1.0, "standard_error": None}


def test_each_difference_is_above_zero_where_the_former_is_better():
    better, worse = torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0])
    errors = {"mle": SimpleNamespace(found=better > 0.5), "classical": SimpleNamespace(found=worse > 0.5)}
    capture = {"R_blend": better, "R_blend_untrained": worse, "R_pred": worse}
    means = {name: difference["mean"] for name, difference in _differences(capture, errors).items()}
    assert means == {"training_capture": 0.5, "blend_capture": 0.5, "learned_found": 0.5}


def _row(found, **changed):
    return {
        "scenes": 6,
        "azimuth_rmse": math.radians(1.25),
        "elevation_rmse": math.radians(2.5),
        "range_rmse": 3.75,
        "position_rmse": 77.0,
        "error_over_bound_found": 4.25,
        "error_over_bound_median": 5.5,
        "found": found,
        "found_strictly": 0.5,
        "missed": 0.88,
    } | changed


def _cell(K, snr_db, learned):
    rows = {"mle": _row(learned), "classical": _row(0.6, range_rmse=None)}
    return {"K": K, "snr_db": snr_db, "order_head": 0.3, "order_residual": 0.4, "methods": rows}


EVALUATION = {
    **_figures(None),
    "scenes": 12,
    "labels": {"mle": "learned", "classical": "greedy"},
    "methods": {"mle": _row(0.7), "classical": _row(0.8)},
    "order_accuracy": {"head": {"all": 0.1}, "residual": {"all": 0.2}},
    "cells": [_cell(1, [-5.0, 0.0], 0.6), _cell(2, [15.0, 18.0], 0.5), _cell(3, [10.0, 10.0], 0.9)],
}


def test_each_column_holds_its_figure_in_its_unit():
    assert COLUMNS == ("azimuth °", "elevation °", "range m", "error/bound", "median", "all found", "strictly", "order")
    same = "1.25", "2.50", "3.75", "4.25", "5.50"
    # The network's order beside its own rows, that of the residual beside the search without learning.
    assert method_rows(EVALUATION) == [["learned", *same, "70%", "50%", "10%"], ["greedy", *same, "80%", "50%", "20%"]]


def test_each_cell_is_headed_by_its_range_and_says_where_learning_does_not_help():
    lines = to_markdown(EVALUATION).splitlines()
    assert [line for line in lines if line.startswith("## ")] == [
        "## K = 1, SNR -5 to 0 dB (6 scenes)",
        "## K = 2, SNR 15 to 18 dB (6 scenes)",
        "## K = 3, SNR 10 dB (6 scenes)",
    ]
    rows = [line for line in lines[lines.index("## K = 1, SNR -5 to 0 dB (6 scenes)") :] if line.startswith("| ")]
    same = "1.25 | 2.50 | 3.75 | 4.25 | 5.50"
    greedy = "| greedy | 1.25 | 2.50 | – | 4.25 | 5.50 | 60% | 50% | 40% |"
    assert [row for row in rows if not row.startswith("| method")] == [
        f"| learned | {same} | 60% | 50% | 30% |",
        greedy,
        f"| learned (learning does not help here) | {same} | 50% | 50% | 30% |",
        greedy,
        f"| learned | {same} | 90% | 50% | 30% |",
        greedy,
    ]
    assert "- Cells of evaluation.md in which the learned search finds fewer: 1 of 3." in lines
