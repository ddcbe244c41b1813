"""Proposals on drawn scenes: they find what is there, say how sure they are, and scenes do not mix."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from ris_verified.config import Config, EstimateConfig, SceneConfig
from ris_verified.data.dataset import draw_batch
from ris_verified.estimate import proposals as module
from ris_verified.estimate.beside import beside_nothing
from ris_verified.estimate.candidates import ranked_places
from ris_verified.estimate.measurement import Measurement
from ris_verified.estimate.parameters import clamped, limits, remoteness
from ris_verified.estimate.projection import fit_columns
from ris_verified.estimate.proposals import Proposals, propose
from ris_verified.shapes import from_ri

COUNT = 3


def _proposed(cfg, count=4, key=3, sources=COUNT):
    batch = draw_batch(cfg, count, key)
    data = (from_ri(batch.y), from_ri(batch.H_full), from_ri(batch.C))
    return batch, data, propose(*data, cfg.replaced({"scene.sources_min": 1, "scene.sources_max": sources}))


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
    assert all(map(torch.equal, vars(found).values(), vars(Proposals.of(found.packed())).values()))
    assert (found.noise <= 0).all()


def test_what_is_surely_a_source_keeps_its_power_and_what_is_not_loses_it():
    _, _, found = _proposed(_scenes(2, 20.0), 8)
    lost = found.log_power - found.log_share
    # Two sources at 20 dB cost hundreds of nats, the third place a few at most.
    assert (found.loss[:, :2] > 50).all()
    assert (found.loss[:, 2] < 15).all()
    assert torch.allclose(found.log_share.exp().sum(-1), torch.ones(8))
    assert torch.allclose(lost[:, 0], lost[:, 1], atol=1e-2)
    assert (lost[:, 2] > lost[:, 0] + torch.log(torch.tensor(1.1))).all()


def test_the_loss_is_that_of_the_likelihood_with_own_powers():
    cfg = _scenes(2, 5.0)
    _, data, found = _proposed(cfg, 4)
    measured = Measurement.of(*(value.to(torch.complex128) for value in data), cfg)
    places = found.parameters.double()
    columns, noise = module.columns_at(places, measured), measured.energy / measured.rows
    load = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64).expand(4, -1)

    def likelihood(kept):
        # y_l ~ CN(0, σ² (I + Σ_k b_k b_kᴴ/load_k)), up to a constant.
        B = columns[..., kept]
        R = torch.eye(B.shape[2]) + (B / load[:, None, None, kept]) @ B.mH
        y = measured.y[..., None]
        quadratic = (y.mH @ torch.linalg.solve(R, y)).real.sum((1, 2, 3)) / noise
        return -quadratic - torch.linalg.slogdet(R).logabsdet.sum(1)

    losses = module._losses(fit_columns(places, columns, measured, load), noise)
    for k in range(COUNT):
        fall = likelihood(list(range(COUNT))) - likelihood([j for j in range(COUNT) if j != k])
        assert torch.allclose(fall, losses[:, k], rtol=1e-9, atol=1e-9)


def test_a_power_of_two_in_the_measurements_changes_nothing():
    cfg = _scenes(2, 10.0)
    _, (y, H_full, C), found = _proposed(cfg, sources=2)
    # It is exact in floating point.
    again = propose(1024 * y, H_full, C, cfg)
    assert torch.allclose(found.parameters, again.parameters, rtol=0, atol=1e4 * torch.finfo(torch.float32).eps)


def test_the_estimators_settings_have_no_say():
    cfg = _scenes(2, 0.0)
    other = dataclasses.replace(cfg, estimate=EstimateConfig(search_summits=1, mle_ridge=1.0, prior="none"))
    _, data, _ = _proposed(cfg)
    assert torch.equal(propose(*data, cfg).packed(), propose(*data, other).packed())


def test_the_first_place_is_the_likeliest_under_the_density_of_sources():
    cfg = _scenes(1, -5.0)
    batch, data, _ = _proposed(cfg, 32)
    measured = Measurement.of(*data, cfg)
    field = module.see(measured, module.folded(cfg.array, cfg.scene, module.GRID, torch.float32, batch.y.device))
    places, promise = ranked_places(beside_nothing(measured), measured, field)
    plain = dataclasses.replace(measured, cfg=cfg.replaced({"estimate.prior": "none"}))
    without, _ = ranked_places(beside_nothing(plain), plain, field)
    with_density, without = places[:, 0], without[:, 0]
    # The density grows with the range; near ones are left where it counts.
    assert (with_density != without).any()
    assert (remoteness(with_density, cfg) - remoteness(without, cfg)).sum() > 0
    assert torch.equal(propose(*data, cfg).promise[:, 0], promise[:, 0])


def test_where_nothing_promises_enough_the_other_places_follow_with_hardly_any_power():
    cfg = _scenes(1, 20.0)
    _, _, found = _proposed(cfg, 16, sources=4)
    ended = found.promise[:, 1] <= module.HOPELESS
    assert ended.sum() > 8
    # They were looked at together, beside the one source, and stand in the order of what they promised.
    assert (found.promise[ended, 1:].diff(dim=1) <= 0).all()
    others = found.log_power.argsort(-1)[:, :-1]
    assert (found.log_power.gather(1, others)[ended].exp() < 1e-2).all()
    apart = torch.cdist(found.parameters, found.parameters) + torch.eye(4)
    assert (apart[ended] > 1e-3).all()


def test_a_scene_ends_by_itself():
    cfg = _scenes(3, 0.0).replaced({"scene.sources_min": 1, "scene.sources_max": 5})
    _, data, found = _proposed(cfg, 16, sources=5)
    # Some end early, some late; each alone is proposed the same, but for the rounding of another batch.
    assert 0 < (found.promise <= module.HOPELESS).any(1).sum() < 16
    alone = torch.cat([propose(*(value[i : i + 1] for value in data), cfg).packed() for i in range(16)])
    gap = ((alone - found.packed()).abs() / found.packed().abs().amax((0, 1))).amax((1, 2))
    # Where two places are as likely rounding may choose the other one.
    assert (gap < 1e4 * torch.finfo(torch.float32).eps).sum() >= 15


def test_a_source_without_power_stays_where_it_is():
    cfg = _scenes(2, 10.0)
    _, data, found = _proposed(cfg, 8, sources=3)
    measured = Measurement.of(*data, cfg)
    place = found.parameters + 1e-3 * torch.randn(8, 3, 3, generator=torch.Generator().manual_seed(0))
    powers = found.log_power.exp() * torch.tensor([1.0, 1.0, 1e-12])
    start = module._State(place, module.columns_at(place, measured), powers, measured.energy / measured.rows)
    after = module._stepped(start, measured)[0]
    faded = after.powers <= module.FADED * after.powers.amax(1, keepdim=True)
    stayed = (after.place == clamped(place, cfg)).all(-1)
    assert faded[:, 2].sum() > 4
    assert not faded[:, :2].any()
    assert stayed[faded].all()
    assert not stayed[~faded].any()


@pytest.mark.parametrize("snr", [10.0, 0.0])
def test_an_exchange_is_kept_where_it_is_likelier(monkeypatch, snr):
    seen = []

    def watched(now, fitted, data, field):
        result = exchanged(now, fitted, data, field)
        cost = fit_columns(result.place, result.columns, data, result.load).cost
        seen.append((now.place, fitted.cost, result.place, cost))
        return result

    exchanged = module._exchanged
    monkeypatch.setattr(module, "_exchanged", watched)
    cfg = _scenes(5, snr)
    _proposed(cfg, 64, sources=5)
    ((place, cost, other, less),) = seen
    stayed = (place == other).flatten(1).all(1)
    farther = (remoteness(other, cfg) - remoteness(place, cfg)).sum(1)
    # The density of places counts in full; the cost of a kept one is computed anew.
    rounding = 1e3 * torch.finfo(cost.dtype).eps * cost.abs()
    assert (less - farther < cost - module.BETTER + rounding)[~stayed].all()
    assert torch.allclose(less[stayed], cost[stayed], rtol=100 * torch.finfo(cost.dtype).eps, atol=0)
    assert not stayed.all()


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
