"""What is no tensor, or of another precision, is told by name."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch

import ris_verified as rv
from ris_verified.covariance.low_rank import LowRank
from ris_verified.data.dataset import draw_batch
from ris_verified.errors import AuditError, InputError, ShapeError
from ris_verified.estimate.result import Peaks
from ris_verified.model.output import ModelOutput
from ris_verified.shapes import from_ri, require_axes, to_ri

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
    sizes = {"array.horizontal": 3, "array.vertical": 3, "scene.antennas": 4, "scene.snapshots": 3}
    small = {"model.channels": 8, "model.width": 8, "model.layers": 1, "model.head_width": 8, "model.head_layers": 1}
    cfg = CFG.replaced(sizes | small)
    batch, pipeline = draw_batch(cfg, 2, 0), rv.Pipeline.default(cfg)
    y, H_full, C = (from_ri(value) for value in (batch.y, batch.H_full, batch.C))
    peaks = Peaks(*batch.ptr.unbind(-1))
    one, R = Peaks(*(value[:1] for value in vars(peaks).values())), batch.R_in
    factor = torch.zeros(2, 36)
    outputs = ModelOutput(factor, factor, torch.zeros(2, 2), batch.ptr[..., :2], batch.ptr[..., 2])
    fewer = dataclasses.replace(outputs, angles=outputs.angles[:1])
    model = pipeline.build_model(cfg)
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
        "loss, logits": lambda: judge(dataclasses.replace(outputs, k_logits=torch.zeros(2, 3)), R),
        "loss, panel": lambda: judge(outputs, R[:, :8, :8], batch=dataclasses.replace(batch, R_in=R[:, :8, :8])),
        "loss, coordinates": lambda: judge(outputs, R, batch=dataclasses.replace(batch, ptr=batch.ptr[..., :2])),
        "mle, panel": lambda: pipeline.mle(peaks, y, H_full[..., :8], C[..., :8], cfg),
        "mle, elevations": lambda: pipeline.mle(
            dataclasses.replace(peaks, elevation=fewer.ranges[:1]), y, H_full, C, cfg
        ),
        "order, panel": lambda: pipeline.order(y, H_full[..., :8], C[..., :8], cfg),
        "spectrum, panel": lambda: pipeline.spectrum(R[:, :8, :8], batch.K, cfg),
        "spectrum, low rank": lambda: pipeline.spectrum(
            LowRank(factor[:, :8, None].cfloat(), torch.ones(2)), batch.K, cfg
        ),
        "newton, panel": lambda: pipeline.newton(R[:, :8, :8], batch.K, peaks, cfg),
        "newton, ranges": lambda: pipeline.newton(
            R, batch.K, dataclasses.replace(peaks, range=peaks.range[:, :1]), cfg
        ),
        "metric, estimate": lambda: pipeline.metric(pipeline, one, batch.ptr, torch.ones(2, 6, 6)),
        "metric, truth": lambda: pipeline.metric(pipeline, peaks, batch.ptr[0], torch.ones(2, 6, 6)),
        "metric, bound": lambda: pipeline.metric(pipeline, peaks, batch.ptr, torch.ones(2, 3, 3)),
        "bound, channel": lambda: pipeline.bound(*vars(peaks).values(), y[..., :2], H_full[..., :8], C, 0.1, cfg),
        "unpack, exchanged": lambda: pipeline.unpack({**vars(batch), "y": batch.H_full, "H_full": batch.y}, "cpu"),
        "unpack, a Batch": lambda: pipeline.unpack(dataclasses.replace(batch, C=batch.C[:, :2]), "cpu"),
        "model, codes": lambda: model(batch.y, batch.H, batch.C[..., :8, :], batch.H_full),
        "model, scenes": lambda: model(batch.y, batch.H, batch.C, batch.H_full[:1]),
        "model, antennas": lambda: model(batch.y, batch.H, batch.C, batch.H_full[:, :3]),
        "model, panel": lambda: model(batch.y, batch.H, batch.C[:, :, :8], batch.H_full[:, :, :8]),
    }


@pytest.mark.parametrize("call", _stages())
def test_axes_that_do_not_agree_are_one_error_at_the_stage(call: str) -> None:
    with pytest.raises(ShapeError, match=r"got .*; expected .* = \[.*; axes that share a letter"):
        _stages()[call]()


def test_the_shape_that_stands_out_is_told_what_the_others_say() -> None:
    given = {
        "y": (8, 16, 144, 2),
        "H": (8, 16, 16, 2),
        "C": (8, 16, 144, 2),
        "H_full": (8, 16, 16, 2),
        "R": (8, 144, 144),
    }
    axes = {"y": "B L M 2", "H": "B L M 2", "C": "B L N 2", "H_full": "B M N 2", "R": "B N N"}
    # On `meta` there are shapes and no numbers that a check could wait for.
    tensors = {name: torch.empty(shape, device="meta") for name, shape in given.items()}
    with pytest.raises(ShapeError) as raised:
        require_axes("batch", axes, tensors)
    assert "y float32 [8, 16, 144, 2]" in raised.value.what
    assert raised.value.expected == (
        "y [B, L, M, 2] = [8, 16, 16, 2], H [B, L, M, 2], C [B, L, N, 2], H_full [B, M, N, 2] = [8, 16, 144, 2], "
        "R [B, N, N]"
    )
    require_axes("batch", axes, tensors | {"y": tensors["H_full"], "H_full": tensors["y"]})


def test_an_axis_on_which_shapes_are_divided_keeps_its_name() -> None:
    with pytest.raises(ShapeError, match=r"'B N N'\] = \[B, 4, 4\], R_samp .* = \[B, 4, 4\]"):
        rv.blend(EYE, EYE.expand(2, -1, -1), CFG)


def test_a_known_size_counts_for_more_than_what_is_given() -> None:
    with pytest.raises(ShapeError, match=r"expected a \[N\] = \[3\], b \[N\] = \[3\]"):
        require_axes("stage", {"a": "N", "b": "N"}, {"a": torch.zeros(2), "b": torch.zeros(2)}, {"N": 3})


@pytest.mark.parametrize("name", ["y", "C", "H_full"])
def test_a_network_is_not_asked_for_a_slope_in_what_was_measured(name: str) -> None:
    cfg = rv.Config.load("small")
    batch, model = draw_batch(cfg, 1, 0), rv.Pipeline.default(cfg).build_model(cfg)
    given = {k: vars(batch)[k].clone().requires_grad_(k == name) for k in ("y", "H", "C", "H_full")}
    with pytest.raises(InputError, match=f"^{name}: requires a gradient.*detach"):
        model(**given)
    with torch.no_grad():
        assert torch.isfinite(model(**given).k_logits).all()
