"""What is no tensor, or of another precision, is told by name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import ris_verified as rv
from ris_verified.errors import AuditError, ShapeError
from ris_verified.shapes import from_ri, to_ri

CFG = rv.Config.load(None, ["array.horizontal=2", "array.vertical=2", "scene.sources_max=2"])
EYE = torch.eye(4, dtype=torch.complex64)[None]


def test_pairs_that_begin_at_an_odd_place_are_complex() -> None:
    pairs = torch.arange(9.0)[1:].view(4, 2)
    assert torch.equal(to_ri(from_ri(pairs)), pairs)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: rv.blend(EYE.numpy(), EYE, CFG), r"R_pred ndarray.*torch\.from_numpy"),
        (lambda: rv.blend(EYE, EYE[:, :2], CFG), r"R_samp complex64 \[1, 2, 4\].*share a letter"),
        (lambda: rv.blend(EYE, EYE.to(torch.complex128), CFG), "R_samp complex128.*one precision"),
        (lambda: rv.element_positions(CFG), "array Config; expected array ArrayConfig$"),
        (lambda: rv.sample_covariance(np.zeros((1, 2, 2)), EYE, EYE, CFG), r"y: ndarray.*torch\.from_numpy"),
        (lambda: rv.sample_covariance(EYE.to(torch.complex128), EYE, EYE, CFG), "y complex128.*one precision"),
    ],
)
def test_one_error_names_the_argument(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        call()


def test_a_configuration_is_no_pipeline() -> None:
    with pytest.raises(AuditError, match=r"pipeline: is a Config.*Pipeline\.default"):
        rv.audit(CFG)


def test_a_network_seeds_no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    rv.Pipeline.default(rv.Config.load("quick")).build_model(rv.Config.load("quick"))
    assert seeded == []
