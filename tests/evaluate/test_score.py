"""The score of a model, from estimates that stand at known distances."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ris_verified.config import Config
from ris_verified.data.dataset import draw_batch
from ris_verified.estimate.result import Estimates, Peaks
from ris_verified.evaluate.score import localisation_score
from ris_verified.pipeline import Pipeline

CFG = Config().replaced({"array.horizontal": 3, "array.vertical": 2, "scene.sources_max": 2})
NAN = math.nan
# Along the normal: the distance of two places is the difference of their ranges.
PTR = torch.tensor([[[0.0, 0.0, 2.0], [0.0, 0.0, 8.0]], [[0.0, 0.0, 3.0], [NAN] * 3]])
BATCHES = [replace(draw_batch(CFG, 2, 0), ptr=PTR), replace(draw_batch(CFG, 2, 1), ptr=PTR.flip(0))]
# By batch: 0.25 m off, 3 m off, 0.5 m off; then one source missed, 0.125 m off and one exact.
RANGES = torch.tensor([[[2.25, 5.0], [3.5, NAN]], [[3.125, NAN], [2.0, NAN]]])
SCORE = (0.25 + 1 + 0.5 + 0.125 + 0 + 1) / 6


class Model(nn.Module):
    """Its head says K = 2 of the first scene and K = 1 of the second."""

    def forward(self, y, H, C, H_full):
        return SimpleNamespace(cov_fact_angle=y, cov_fact_range=y, k_logits=torch.tensor([[0.0, 1.0], [1.0, 0.0]]))


def _peaks(ranges):
    place = torch.zeros_like(ranges).masked_fill(ranges.isnan(), NAN)
    return Peaks(place, place, ranges)


def _pipeline(last, **switches):
    """Return a pipeline whose stage `last` finds RANGES; the stages before it find what is another metre away."""
    calls, seen = {"spectrum": iter(RANGES), "newton": iter(RANGES), "mle": iter(RANGES)}, []

    def found(name):
        return _peaks(next(calls[name]) + (0.0 if name == last else 1.0))

    def spectrum(R, K, cfg):
        seen.append(("spectrum", R, K.tolist()))
        return found("spectrum")

    def newton(R, K, peaks, cfg):
        seen.append(("newton", R, K.tolist()))
        return found("newton")

    def mle(peaks, y, H_full, C, cfg):
        seen.append(("mle",))
        return Estimates(*vars(found("mle")).values(), torch.zeros(2), torch.zeros(2))

    stages = {"spectrum": spectrum, "newton": newton, "mle": mle}
    matrices = {
        "inference_predicted_covariance": lambda *_: "R_pred",
        "inference_sample_covariance": lambda *_: "R_samp",
        "inference_blend": lambda P, S, _: SimpleNamespace(R=f"{P} and {S}", R_pred=P, R_samp=S),
    }
    return replace(Pipeline.default(CFG.replaced(switches)), **stages, **matrices), seen


@pytest.mark.parametrize(
    ("last", "switches"),
    [
        ("mle", {}),
        ("mle", {"estimate.newton_nearfield": False}),
        ("newton", {"estimate.mle": False}),
        ("spectrum", {"estimate.mle": False, "estimate.newton_nearfield": False}),
    ],
)
def test_the_score_is_the_mean_of_capped_distances_of_the_last_stage_that_is_on(last, switches):
    pipeline, seen = _pipeline(last, **switches)
    # Positions of single precision: the distance keeps about that of its metres.
    near = 8 * 4 * float(np.finfo(np.float32).eps)
    assert localisation_score(pipeline, Model(), BATCHES) == pytest.approx(SCORE, abs=near)
    for name, *asked in seen:
        assert asked in ([], ["R_pred and R_samp", [2, 1]]), name


def test_a_score_lies_between_nothing_off_and_everything_a_metre_off():
    pipeline, _ = _pipeline("spectrum")
    for shift, score in ((0.0, 0.0), (50.0, 1.0)):
        exact = replace(pipeline, mle=lambda *_, shift=shift: _peaks(PTR[..., 2] + shift))
        assert localisation_score(exact, Model(), BATCHES[:1]) == score


def test_no_scenes_score_nothing():
    assert localisation_score(_pipeline("mle")[0], Model(), []) == 0
