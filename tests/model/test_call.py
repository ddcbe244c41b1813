"""Who is given the stored proposals, and that they are used."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from ris_verified.config import Config, ModelConfig
from ris_verified.data.batch import ProposedBatch
from ris_verified.data.dataset import draw_batch, with_proposals
from ris_verified.model import network
from ris_verified.model.call import outputs_of
from ris_verified.model.network import build_model
from ris_verified.pipeline import Pipeline
from ris_verified.train.state import TrainState

CFG = Config(
    model=ModelConfig(channels=8, width=16, layers=1, heads=2, head_width=16, head_layers=1, dropout=0.0)
)  # fmt: skip


@pytest.fixture(scope="module")
def stored():
    return with_proposals(draw_batch(CFG, 3, 1), CFG)


def _called(batch):
    return (batch.y, batch.H, batch.C, batch.H_full)


@pytest.mark.parametrize("wrap", [lambda model: model, AveragedModel])
def test_stored_proposals_stand_in_for_the_search(stored, wrap, monkeypatch):
    model = build_model(CFG).eval()
    with torch.no_grad():
        expected = model(*_called(stored))
        monkeypatch.setattr(network, "propose", None)
        given = outputs_of(wrap(model), stored)
    for name, value in vars(given).items():
        assert torch.equal(value, vars(expected)[name]), name


def test_training_and_validation_use_what_is_stored(stored, monkeypatch):
    monkeypatch.setattr(network, "propose", None)
    pipeline = Pipeline.default(CFG)
    state = TrainState.create(pipeline, total_steps=2)
    assert not pipeline.train_step(state, stored, pipeline).skipped
    assert pipeline.validate(pipeline, state.model, [stored])["capture"] > 0


def test_proposals_of_others_are_believed(stored):
    model = build_model(CFG).eval()
    others = ProposedBatch(**{**vars(stored), "proposals": stored.proposals.roll(1, 0)})
    with torch.no_grad():
        assert not torch.allclose(outputs_of(model, others).angles, outputs_of(model, stored).angles, atol=1e-2)


def test_a_model_that_takes_four_inputs_gets_four(stored):
    class Counting(nn.Module):
        def forward(self, *inputs):
            return len(inputs)

    assert outputs_of(Counting(), stored) == 4
    declined = Counting()
    declined.takes_proposals = False
    assert outputs_of(declined, stored) == 4
    assert outputs_of(build_model(CFG), draw_batch(CFG, 2, 1)).angles.shape[0] == 2
