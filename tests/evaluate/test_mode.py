"""Whoever judges a model finds it in evaluation mode and leaves every part of it as it was."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ris_verified.config import Config
from ris_verified.data.dataset import draw_batch
from ris_verified.estimate.result import Peaks
from ris_verified.evaluate.score import localisation_score
from ris_verified.pipeline import Pipeline
from ris_verified.train.validate import validate

CFG = Config().replaced({"array.horizontal": 3, "array.vertical": 2, "estimate.mle": False})
BATCH = draw_batch(CFG, 2, 0)


class Model(nn.Module):
    """Two parts, of which training freezes one; records its modes where it is called."""

    def __init__(self):
        super().__init__()
        self.frozen, self.free = nn.Dropout(), nn.Dropout()
        self.seen = []

    def modes(self):
        return [part.training for part in self.modules()]

    def forward(self, y, H, C, H_full):
        self.seen.append(self.modes())
        return SimpleNamespace(cov_fact_angle=y, cov_fact_range=y, k_logits=torch.zeros(len(y), 5))


def _raises(*_, **__):
    raise ArithmeticError


def _pipeline(**stages):
    def covariance(*_):
        return torch.eye(6, dtype=torch.complex64).expand(2, 6, 6)

    def blend(R_pred, R_samp, _):
        return SimpleNamespace(R=R_pred, R_pred=R_pred)

    def nothing(R, *_):
        return Peaks(*torch.full((3, len(R), 5), math.nan))

    def loss(*_, **__):
        return SimpleNamespace(total=torch.ones(()), nmse=torch.ones(()))

    own = {
        f"{prefix}{name}": stage
        for prefix in ("", "inference_")
        for name, stage in (("predicted_covariance", covariance), ("sample_covariance", covariance), ("blend", blend))
    }
    return replace(Pipeline.default(CFG), **(own | {"spectrum": nothing, "newton": nothing, "loss": loss} | stages))


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("judge", [localisation_score, validate])
def test_each_part_gets_its_own_mode_back(judge, training, frozen):
    model = Model().train(training)
    model.frozen.train(not frozen)
    before = model.modes()
    judge(_pipeline(), model, [BATCH, BATCH])
    assert model.seen == [[False] * 3] * 2
    assert model.modes() == before == [training, not frozen, training]


@pytest.mark.parametrize(
    ("judge", "stage"), [(localisation_score, "spectrum"), (localisation_score, "newton"), (validate, "loss")]
)
def test_a_stage_that_raises_leaves_the_modes_as_they_were(judge, stage):
    model = Model().train()
    model.frozen.eval()
    with pytest.raises(ArithmeticError):
        judge(_pipeline(**{stage: _raises}), model, [BATCH])
    assert model.seen == [[False] * 3]
    assert model.modes() == [True, False, True]


@pytest.mark.parametrize("judge", [localisation_score, validate])
def test_scenes_that_cannot_be_read_leave_the_modes_as_they_were(judge):
    model = Model().train()
    model.frozen.eval()
    with pytest.raises(ArithmeticError):
        judge(_pipeline(), model, (_raises() for _ in range(1)))
    assert model.modes() == [True, False, True]
