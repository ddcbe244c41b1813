"""Proposals on drawn scenes: they find what is there, say how sure they are, and scenes do not mix."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ris_verified.array.folded import folded
from ris_verified.config import Config, SceneConfig
from ris_verified.data.dataset import draw_batch
from ris_verified.estimate.measurement import Measurement
from ris_verified.estimate.parameters import limits, remoteness
from ris_verified.estimate.projection import fit_columns
from ris_verified.model import proposals as module
from ris_verified.model.dictionary import Dictionary
from ris_verified.model.proposals import propose
from ris_verified.shapes import from_ri

COUNT = 3


def _proposed(cfg, count=4, heat=None, key=3, sources=COUNT):
    batch, dictionary = draw_batch(cfg, count, key), Dictionary(cfg)
    data = Measurement.of(from_ri(batch.y), from_ri(batch.H_full), from_ri(batch.C), cfg)
    grid = folded(cfg.array, cfg.scene, dictionary.shape, torch.float32, torch.device("cpu"))
    heat = torch.zeros(count, *dictionary.shape) if heat is None else heat
    return batch, data, propose(heat, data, grid, dictionary.lobe, sources)


def _scenes(K, snr, **more):
    return Config(scene=SceneConfig(sources_min=K, sources_max=K, snr_db_min=snr, snr_db_max=snr, **more))


@pytest.mark.parametrize("symbols", ["varying", "constant"])
@pytest.mark.parametrize("K", [1, 3])
def test_strong_sources_are_found_within_their_sigma_and_hold_the_power(K, symbols):
    cfg = _scenes(K, 30.0, symbols=symbols)
    batch, _, found = _proposed(cfg, 8)
    strongest = found.log_power.topk(K).indices[..., None].expand(-1, -1, 3)
    true = torch.stack([batch.ptr[..., 0], batch.ptr[..., 1], 1 / batch.ptr[..., 2]], -1)[:, :K]
    error = (found.parameters.gather(1, strongest)[:, :, None] - true[:, None]).abs()
    sigma = found.sigma.gather(1, strongest)[:, :, None]
    near = (error / sigma).amax(-1).amin(1)
    # Of 24 coordinates and more, one in a thousand lies beyond 5 sigma; one scene may be a failed search.
    assert ((near < 5).all(-1)).sum() >= 7
    assert (found.log_power.exp().topk(K).values.sum(-1) > 0.9).sum() >= 7


def test_gains_tell_how_many_there_are():
    _, _, found = _proposed(_scenes(2, 20.0), 8)
    assert (found.gain[:, :2] > 0).all()
    assert (found.gain[:, 2] < found.gain[:, :2].amin(1)).all()
    assert (found.gain[:, 2] < 3).sum() >= 7


def test_every_figure_is_finite_and_in_the_view():
    cfg = _scenes(3, -5.0)
    _, _, found = _proposed(cfg)
    for name, value in vars(found).items():
        assert torch.isfinite(value).all(), name
    low, high = limits(cfg, found.parameters)
    assert ((found.parameters >= low) & (found.parameters <= high)).all()
    assert torch.allclose(found.log_power.exp().sum(-1), torch.ones(4))
    assert (found.log_chosen <= 0).all()
    assert (found.noise <= 0).all()


def test_power_of_ten_in_the_measurements_changes_nothing():
    cfg = _scenes(2, 10.0)
    _, data, found = _proposed(cfg)
    dictionary = Dictionary(cfg)
    grid = folded(cfg.array, cfg.scene, dictionary.shape, torch.float32, torch.device("cpu"))
    # A power of two is exact in floating point.
    louder = dataclasses.replace(data, y=data.y * 1024)
    again = propose(torch.zeros(4, *dictionary.shape), louder, grid, dictionary.lobe, COUNT)
    assert torch.allclose(found.parameters, again.parameters, rtol=0, atol=1e4 * torch.finfo(torch.float32).eps)


def test_heat_moves_the_choice_and_receives_a_gradient(monkeypatch):
    chosen = []

    def watched(*given):
        chosen.append(choice(*given))
        return chosen[-1]

    choice = module._choice
    monkeypatch.setattr(module, "_choice", watched)
    cfg = _scenes(1, -5.0)
    shape = Dictionary(cfg).shape
    heat = torch.zeros(4, *shape)
    heat[:, 1, 2, 3] = 1e4
    _proposed(cfg, heat=heat)
    points = torch.stack([index for _, index, _ in chosen], 1)
    assert (points == (shape[1] + 2) * shape[2] + 3).any(-1).all()
    # An exchanged source owes nothing to the heat.
    monkeypatch.setattr(module, "_exchanged", lambda now, fitted, weight, data, field: (now, weight))
    level = torch.zeros(4, *shape, requires_grad=True)
    (slope,) = torch.autograd.grad(_proposed(cfg, heat=level)[2].log_chosen.sum(), level)
    # Weights of a softmax: what the chosen gains, its rivals lose.
    assert (slope.flatten(1).amax(1) > 0).all()
    assert (slope.flatten(1).amin(1) < 0).all()


@pytest.mark.parametrize("snr", [10.0, 0.0])
def test_an_exchange_is_kept_where_it_is_likelier_and_its_choice_has_no_weight(monkeypatch, snr):
    before, after, weights = [], [], []

    def watched(now, fitted, weight, data, field):
        result, left = exchanged(now, fitted, weight, data, field)
        before.append((now.place, fitted.cost))
        after.append((result.place, fit_columns(result.place, result.columns, data, result.load).cost))
        weights.append((weight, left))
        return result, left

    exchanged = module._exchanged
    monkeypatch.setattr(module, "_exchanged", watched)
    cfg = _scenes(5, snr)
    _proposed(cfg, 64)
    for (place, cost), (other, less), (was, now) in zip(before, after, weights, strict=True):
        stayed = (place == other).flatten(1).all(1)
        farther = (remoteness(other, cfg) - remoteness(place, cfg)).sum(1)
        # The density of places counts in full; the cost of a kept one is computed anew.
        rounding = 1e3 * torch.finfo(cost.dtype).eps * cost.abs()
        assert (less - farther < cost - module.BETTER + rounding)[~stayed].all()
        assert torch.allclose(less[stayed], cost[stayed], rtol=100 * torch.finfo(cost.dtype).eps, atol=0)
        assert torch.equal(was[stayed], now[stayed])
        assert (now[~stayed] == 0).any(1).all()
        # One source of each is another one; the rest has stepped along.
        assert ((now == 0) & (was != 0)).sum(1).le(1).all()
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(before, after, strict=True))


def test_the_density_of_sources_counts_as_heat_does():
    # One addition: a lobe's heat counts once, its density always.
    cfg = _scenes(1, -5.0)
    plain, grid = cfg.replaced({"estimate.prior": "none"}), Dictionary(cfg)
    density = remoteness(grid.coordinates, cfg).unflatten(0, grid.shape).expand(16, -1, -1, -1)
    known, told, untold = (
        _proposed(c, 16, heat, sources=1)[2].log_chosen for c, heat in ((cfg, None), (plain, density), (plain, None))
    )
    # Logarithms of weights that add to one, of gains of some hundred nats.
    bound = 1e3 * torch.finfo(torch.float32).eps
    assert (known - told).abs().max() <= bound
    assert ((known - untold).abs() > bound).any()


def test_a_source_without_power_leaves_the_sigmas_of_the_others():
    generator = torch.Generator().manual_seed(0)
    tangents = torch.randn(4, 20, 6, generator=generator)
    curvature = tangents.mT @ tangents
    whole = module._sigma(curvature, torch.ones(4))
    faded = torch.zeros(4, 9, 9)
    faded[:, :6, :6] = curvature
    # What a vanishing source leaves in single precision: rows of rounding, and not quite positive.
    faded[:, 6:, 6:] = 1e-30 * torch.randn(4, 3, 3, generator=generator)
    sigma = module._sigma(faded, torch.ones(4))
    assert torch.isfinite(sigma).all()
    assert torch.allclose(sigma[:, :2], whole, rtol=1e3 * torch.finfo(torch.float32).eps)
    assert (sigma[:, 2] > 1e3 * sigma[:, :2].amax(1)).all()
