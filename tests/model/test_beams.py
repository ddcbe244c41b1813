"""Beams against their definition, place by place, and what choosing a place takes away."""

from __future__ import annotations

import pytest
import torch

from ris_verified.array.folded import folded
from ris_verified.array.steering import steering
from ris_verified.config import ArrayConfig, Config, SceneConfig
from ris_verified.data.dataset import draw_batch
from ris_verified.model import beams as module
from ris_verified.model.beams import TOGETHER, Beams
from ris_verified.shapes import from_ri

SHAPE = (2, 4, 8)
EPS = torch.finfo(torch.float64).eps


def _config(symbols="varying", sources=2):
    scene = SceneConfig(antennas=5, snapshots=4, sources_min=sources, sources_max=sources, symbols=symbols)
    return Config(array=ArrayConfig(horizontal=5, vertical=4), scene=scene)


def _drawn(cfg, count=3):
    batch = draw_batch(cfg, count, 7)
    return tuple(from_ri(value).to(torch.complex128) for value in (batch.y, batch.H_full, batch.C))


def _beams(cfg, data):
    return Beams.of(*data, folded(cfg.array, cfg.scene, SHAPE, torch.float64, torch.device("cpu")), cfg)


def _plain(cfg, y, H, C, places):
    """Return z, B_l and their log gain as the definition reads, one scene, looping over snapshots."""
    U, S, _ = torch.linalg.svd(H, full_matrices=False)
    W = (S.square() + S.square().mean()).rsqrt()[:, None] * U.mH
    a = steering(cfg.array, places[:, 0], places[:, 1], 1 / places[:, 2]).mT
    z, b = [W @ row for row in y], [W @ H @ (c[:, None] * a) for c in C]
    if cfg.scene.symbols == "constant":
        z, b = [torch.cat(z)], [torch.cat(b)]
    gain = sum((bl.mH @ zl).abs().square() / bl.abs().square().sum(0) for zl, bl in zip(z, b, strict=True))
    return (gain / sum(zl.abs().square().sum() for zl in z)).log()


@pytest.mark.parametrize("symbols", ["varying", "constant"])
def test_the_gain_is_that_of_every_place_alone(symbols, monkeypatch):
    monkeypatch.setattr(module, "FOLLOWED", 5)
    cfg = _config(symbols)
    data = _drawn(cfg, TOGETHER + 2)
    beams = _beams(cfg, data)
    for scene, found in zip(zip(*data, strict=True), beams.log_gain(), strict=True):
        plain = _plain(cfg, *scene, beams.grid.places)
        # Quotients of sums of at most N M terms.
        assert torch.allclose(found, plain, rtol=0, atol=1e4 * 100 * EPS)


def test_following_two_directions_is_near_to_following_all(monkeypatch):
    cfg = _config()
    data = _drawn(cfg)
    rough = _beams(cfg, data).log_gain()
    monkeypatch.setattr(module, "FOLLOWED", 5)
    whole = _beams(cfg, data).log_gain()
    assert not torch.equal(rough, whole)
    assert float(torch.corrcoef(torch.stack([rough.flatten(), whole.flatten()]))[0, 1]) > 0.8


@pytest.mark.parametrize("symbols", ["varying", "constant"])
def test_beside_the_only_source_nothing_is_left(symbols):
    cfg = _config(symbols, sources=1)
    _, H, C = _drawn(cfg)
    grid = folded(cfg.array, cfg.scene, SHAPE, torch.float64, torch.device("cpu"))
    chosen = torch.tensor([0, 13, 63])
    azimuth, elevation, inverse = grid.places[chosen].unbind(-1)
    a = steering(cfg.array, azimuth, elevation, 1 / inverse)
    s = torch.tensor([1.0, 1.0, 1.0, 1.0] if symbols == "constant" else [1.0, -2.0, 0.5, 3.0])
    y = ((C * a[:, None]) @ H.mT) * s[:, None]
    beams = _beams(cfg, (y, H, C))
    assert torch.equal(beams.log_gain().argmax(-1), chosen) or symbols == "varying"
    beside = beams.beside(chosen)
    assert float(beside.log_left().max()) < 2 * torch.tensor(1e3 * EPS).log()
    other = beside.beside((chosen + 5) % 64)
    span = other.basis.mH @ other.basis
    assert torch.allclose(span, torch.eye(2, dtype=span.dtype).expand_as(span), atol=1e3 * EPS)


def test_what_is_left_never_grows_and_gains_stay_shares():
    beams = _beams(_config(), _drawn(_config()))
    before = beams.log_left()
    assert torch.allclose(before, torch.zeros_like(before), atol=100 * EPS)
    for chosen in (3, 20, 40):
        beams = beams.beside(torch.full((3,), chosen))
        after = beams.log_left()
        assert (after <= before + 100 * EPS).all()
        before = after
