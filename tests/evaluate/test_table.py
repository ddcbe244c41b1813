"""The evaluation's sentences: a difference is claimed only where the scenes show one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ris_verified.evaluate.run import _difference, _differences
from ris_verified.evaluate.table import learning_notes


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
