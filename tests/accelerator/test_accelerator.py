"""Everything that runs on an accelerator stays there, from the network to the bounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import ris_verified as rv
from ris_verified.data.dataset import draw_batch, with_proposals
from ris_verified.data.generate import generate
from ris_verified.shapes import from_ri
from ris_verified.train import loop
from ris_verified.train.memory import peak_memory
from ris_verified.train.portrait import portrait, spectrum_figure
from ris_verified.train.state import TrainState

SIZES = [
    "array.horizontal=6", "array.vertical=6", "scene.snapshots=8", "scene.antennas=8", "scene.sources_max=2",
    "model.width=32", "model.head_width=32", "model.heads=2", "data.train_scenes=8", "data.validation_scenes=2",
    "data.test_scenes=2", "data.workers=1", "train.batch_size=4", "train.epochs=2", "train.precision='float32'",
    "train.ema_decay=0.9", "train.swa_share=0.4", "train.accumulation=2", "train.checkpoint_steps=1",
]  # fmt: skip
CFG = rv.Config.load("quick", SIZES)


def away(value: Tensor) -> bool:
    return value.device.type == "meta"


def test_a_step_validation_and_a_portrait(accelerator: torch.device) -> None:
    pipeline = rv.Pipeline.default(CFG)
    stored = pipeline.unpack(with_proposals(draw_batch(CFG, 4, 1), CFG), accelerator)
    drawn = pipeline.unpack(draw_batch(CFG, 4, 2), accelerator)
    state = TrainState.create(pipeline, total_steps=4, device=accelerator)
    for batch in (stored, drawn):
        report = pipeline.train_step(state, batch, pipeline)
        assert not report.skipped
        assert away(report.loss)
    figures = pipeline.validate(pipeline, state.best, [stored, drawn])
    assert 0 < figures["capture"] <= 1
    assert 0 <= pipeline.score(pipeline, state.best, [drawn]) <= 1
    assert spectrum_figure(portrait(pipeline, state.best, stored)) is not None
    assert peak_memory(pipeline, 8, accelerator).total > 0


@pytest.mark.parametrize(("contracts", "parts", "most"), [(False, 1, 5), (True, 1, 8), (True, 2, 15)])
def test_a_step_waits_for_the_device_a_few_times_only(accelerator, reads, contracts, parts, most) -> None:
    """Is it sound? Of a part: inputs, codes, outputs, loss and three contracts; of a step: the gradient."""
    pipeline = rv.Pipeline.default(CFG.replaced({"train.accumulation": parts, "contracts": contracts}))
    batch = pipeline.unpack(with_proposals(draw_batch(CFG, 4, 1), CFG), accelerator)
    state = TrainState.create(pipeline, total_steps=4, device=accelerator)
    pipeline.train_step(state, batch, pipeline)
    with reads:
        assert not pipeline.train_step(state, batch, pipeline).skipped
    assert reads.count == most


def test_localisation_with_the_order_and_the_data_wherever_they_are(accelerator: torch.device) -> None:
    pipeline = rv.Pipeline.default(CFG)
    batch = pipeline.unpack(draw_batch(CFG, 3, 3), accelerator)
    data = [from_ri(vars(batch)[name]) for name in ("y", "H_full", "C")]
    model = pipeline.build_model(CFG).to(accelerator)
    scene = rv.draw_scene(CFG, 0)
    arrays = (scene.y, scene.H_full, scene.codes)
    found: list[Any] = [rv.localize(*data, CFG, order=order) for order in (None, 2, torch.tensor([1, 2, 1]))]
    found += [rv.localize(*data, CFG, order=order, model=model) for order in (None, 2)]
    found += [rv.localize(*arrays, CFG, model=model), rv.localize(*(value.cpu() for value in data), CFG, model=model)]
    assert all(away(estimates.azimuth) and away(estimates.covariance) for estimates in found)
    assert not away(rv.localize(*arrays, CFG).azimuth)


def test_steering_bounds_and_spectra(accelerator: torch.device) -> None:
    batch = rv.Pipeline.default(CFG).unpack(draw_batch(CFG, 2, 4), accelerator)
    azimuth, elevation, range = batch.ptr.double().unbind(-1)
    H_full, C = (from_ri(vars(batch)[name]) for name in ("H_full", "C"))
    symbols = torch.ones(2, 8, 2, dtype=torch.complex128, device=accelerator)
    bounds = [
        rv.cramer_rao_bound(azimuth, elevation, range, symbols, H_full, C, 0.1, CFG),
        rv.planar_cramer_rao_bound(azimuth, elevation, symbols, H_full, C, 0.1, CFG),
        rv.stochastic_bound(azimuth, elevation, range, torch.ones_like(azimuth), H_full, C, 0.1, CFG),
    ]
    assert all(map(away, bounds))
    # Python numbers adapt to the device as they do to the precision.
    a = rv.steering(CFG.array, azimuth[:, 0], 0.1, 2.0)
    assert away(a)
    assert away(rv.planar_steering(CFG.array, azimuth[:, 0], 0.1))
    R = batch.R_in + torch.eye(36, device=accelerator)
    assert away(rv.music_spectrum(R, batch.K, a.to(torch.complex64)))


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta")  # torch knows of no copy to this device
def test_a_run_and_its_continuation(accelerator: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "default_device", lambda: accelerator)
    pipeline = rv.Pipeline.default(CFG)
    generate(CFG, tmp_path / "data")
    whole = pipeline.train(pipeline, tmp_path / "data", tmp_path / "out", curves=False)
    last = sorted((tmp_path / "out" / "checkpoints").glob("*.safetensors"))[-1]
    last.unlink()
    again = pipeline.train(pipeline, tmp_path / "data", tmp_path / "out", curves=False)
    assert all(map(away, again.model.parameters()))
    for mine, its in zip(again.model.state_dict().values(), whole.model.state_dict().values(), strict=True):
        assert torch.equal(mine, its)
