"""Each row of the comparison runs the stages, on the matrix, that its label names."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from ris_verified.evaluate import methods
from ris_verified.evaluate.methods import METHODS, localised

K = torch.tensor([1, 2])


def _field(value):
    return torch.full((2, 3, 4, 2), value)


@pytest.fixture
def found(monkeypatch):
    """Localise with stages that return their name and what they were called with."""
    batch = SimpleNamespace(y=_field(1.0), H=_field(4.0), C=_field(3.0), H_full=_field(2.0), K=K)

    def infer(model, y, H, C, H_full):
        assert (y, H, C, H_full) == (batch.y, batch.H, batch.C, batch.H_full)
        logits = torch.tensor([[0.0, 1.0, 0.0], [3.0, 1.0, 2.0]])
        return SimpleNamespace(k_logits=logits), SimpleNamespace(
            R="R_blend", R_pred="R_pred", R_samp="R_samp", R_raw="R_raw"
        )

    def data(*values):
        assert {value.dtype for value in values} == {torch.complex128}
        return tuple(complex(value.flatten()[0]) for value in values)

    def search(y, H_full, C, order, cfg):
        return "search", *data(y, H_full, C), order, cfg

    pipeline = SimpleNamespace(
        config="cfg",
        infer=infer,
        spectrum=lambda R, order, cfg: ("spectrum", R, order, cfg),
        newton=lambda R, order, peaks, cfg: ("newton", R, order, peaks, cfg),
        mle=lambda peaks, y, H_full, C, cfg: ("mle", peaks, *data(y, H_full, C), cfg),
    )
    monkeypatch.setattr(methods, "greedy_search", search)
    return localised(pipeline, None, batch)


def test_each_row_runs_what_its_label_names(found):
    data = 1 + 1j, 2 + 2j, 3 + 3j
    peaks = "spectrum", "R_blend", K, "cfg"
    refined = "newton", "R_blend", K, peaks, "cfg"
    assert found[0] == {
        "music_R_samp": ("spectrum", "R_samp", K, "cfg"),
        "music_R_pred": ("spectrum", "R_pred", K, "cfg"),
        "music_R_blend": peaks,
        "newton": refined,
        "mle": ("mle", refined, *data, "cfg"),
        "classical": ("mle", ("search", *data, K, "cfg"), *data, "cfg"),
    }
    assert set(found[0]) == set(METHODS)


def test_the_order_is_the_likeliest_of_the_head_counted_from_one(found):
    assert found[2].tolist() == [2, 1]
