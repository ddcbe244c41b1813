"""Estimates from R_blend against the bound: what is sound passes, the truth itself and multiplied errors do not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from ris_verified.audit.context import Context
from ris_verified.audit.laws.on_blend import SCENES, SNR_DB, from_blend
from ris_verified.audit.rules import rules
from ris_verified.audit.runner import PACKAGE, run_rule
from ris_verified.config import Config
from ris_verified.pipeline import Pipeline


def _failed(pipeline: Pipeline, seed: int = 0) -> list[str]:
    return [m.message for m in from_blend(Context(pipeline, "quick", PACKAGE, seed=seed)) if not m.passed]


def _moved(share: float) -> Pipeline:
    """Return a pipeline whose MLE ends at a share of its error from the truth."""
    sound = Pipeline.default(Config())
    scene = dataclasses.replace(sound.config.scene, sources_max=2, snr_db_min=SNR_DB, snr_db_max=SNR_DB)
    drawn = Context(sound, "quick", PACKAGE).draw(SCENES, dataclasses.replace(sound.config, scene=scene), key=5)

    def mle(peaks, *given):
        found = sound.mle(peaks, *given)
        changed = {n: vars(found)[n].clone() for n in ("azimuth", "elevation", "range")}
        for i, truth in enumerate(drawn):
            place, true = (
                np.stack([vars(e)[n] for n in ("azimuth", "elevation")], -1) for e in (_row(found, i), truth)
            )
            near = np.abs(place[:, None] - true).sum(-1).argmin(1)
            for name, value in changed.items():
                there = torch.from_numpy(vars(truth)[name][near])
                value[i, : len(near)] = there + share * (value[i, : len(near)] - there)
        return dataclasses.replace(found, **changed)

    return dataclasses.replace(sound, mle=mle)


def _row(found, i: int):
    K = int(found.order[i])
    return dataclasses.replace(found, **{n: vars(found)[n][i, :K].numpy() for n in ("azimuth", "elevation", "range")})


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_sound_estimates_keep_to_the_bound_whatever_the_share(beta: float) -> None:
    config = Config().replaced({"covariance.beta": beta})
    context = Context(Pipeline.default(config), "quick", PACKAGE, seed=7)
    found = from_blend(context)
    assert {m.where for m in found} >= {"newton", "mle"}
    assert all(m.passed for m in found)


def test_an_estimate_that_has_seen_the_truth_is_found() -> None:
    assert [text for text in _failed(_moved(0.1)) if "not better than the data" in text]


def test_errors_of_ten_bounds_are_found() -> None:
    assert [text for text in _failed(_moved(10.0)) if "without the worst quarter" in text]


def test_a_source_without_an_estimate_is_named() -> None:
    sound = Pipeline.default(Config())

    def mle(peaks, *given):
        found = sound.mle(peaks, *given)
        found.range[-1, 0] = torch.nan
        return found

    assert _failed(dataclasses.replace(sound, mle=mle)) == ["each source has an estimate from R_blend"]


def test_errors_as_they_are_pass_the_same_way() -> None:
    assert _failed(_moved(1.0)) == []


def test_a_ridge_of_the_run_is_not_taken_for_a_slip_of_the_estimator() -> None:
    config = Config().replaced({"estimate.mle_ridge": 0.01})
    assert {r.status for r in run_rule(rules()["RV1204"], Context(Pipeline.default(config), "quick", PACKAGE))} == {
        "pass"
    }
