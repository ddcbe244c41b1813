"""What is no tensor, or of another precision, is told by name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch

import ris_verified as rv
from ris_verified.data.dataset import draw_batch
from ris_verified.errors import AuditError, ShapeError
from ris_verified.estimate.result import Peaks
from ris_verified.model.output import ModelOutput
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


def _stages() -> dict[str, Callable[[], object]]:
    cfg = CFG.replaced({"array.horizontal": 3, "array.vertical": 3, "scene.antennas": 4, "scene.snapshots": 3})
    batch, pipeline = draw_batch(cfg, 2, 0), rv.Pipeline.default(cfg)
    y, H_full, C = (from_ri(value) for value in (batch.y, batch.H_full, batch.C))
    peaks = Peaks(*batch.ptr.unbind(-1))
    one, R = Peaks(*(value[:1] for value in vars(peaks).values())), batch.R_in
    factor = torch.zeros(2, 36)
    outputs = ModelOutput(factor, factor, torch.zeros(2, 2), batch.ptr[..., :2], batch.ptr[..., 2])
    fewer = dataclasses.replace(outputs, angles=outputs.angles[:1])
    judge = functools.partial(pipeline.loss, batch=batch, cfg=cfg, training=False)
    return {
        "mle, codes": lambda: pipeline.mle(peaks, y, H_full, C[:, :2], cfg),
        "mle, peaks": lambda: pipeline.mle(one, y, H_full, C, cfg),
        "order, channel": lambda: pipeline.order(y, H_full[..., :8], C, cfg),
        "newton, covariance": lambda: pipeline.newton(R[:, :8], batch.K, peaks, cfg),
        "newton, peaks": lambda: pipeline.newton(R, batch.K, one, cfg),
        "match, truth": lambda: pipeline.match(*vars(peaks).values(), batch.ptr[:1]),
        "loss, prediction": lambda: judge(outputs, R[:1]),
        "loss, blend": lambda: judge(outputs, R, R_blend=R[:1]),
        "loss, angles": lambda: judge(fewer, R),
        "loss, truth": lambda: judge(outputs, R, batch=dataclasses.replace(batch, R_in=R[:1])),
        "loss, places": lambda: judge(outputs, R, batch=dataclasses.replace(batch, ptr=batch.ptr[:1])),
    }


@pytest.mark.parametrize("call", _stages())
def test_axes_that_do_not_agree_are_one_error_at_the_stage(call: str) -> None:
    with pytest.raises(ShapeError, match=r"axes that share a letter|scenes on the first axis"):
        _stages()[call]()
