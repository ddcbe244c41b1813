"""The head on proposals made by hand: what it takes from them as it is, and what moves with what."""

from __future__ import annotations

import dataclasses

import torch

from ris_verified.config import Config
from ris_verified.estimate.proposals import Proposals
from ris_verified.model.dictionary import Dictionary
from ris_verified.model.heads import Head


def _case():
    cfg = Config()
    K, m = cfg.scene.sources_max, cfg.model
    generator = torch.Generator().manual_seed(0)
    head, dictionary = Head(cfg).eval(), Dictionary(cfg)
    places = dictionary.coordinates[:K].expand(2, -1, -1)
    powers = torch.randn(2, K, generator=generator).log_softmax(-1)
    nats = torch.linspace(-2.0, 30.0, K).expand(2, -1)
    found = Proposals(places, 0.01 + torch.zeros(2, K, 3), powers, torch.ones(2, K), nats, nats, -torch.ones(2, K))
    feature_map = torch.randn(2, m.channels, m.dictionary_elevation, m.dictionary_azimuth, generator=generator)
    context = torch.randn(2, m.width, generator=generator)
    return head, dictionary, found, feature_map, context


def test_slots_have_the_shares_of_the_likelihood():
    head, dictionary, found, feature_map, context = _case()
    assert torch.equal(head(feature_map, context, found, dictionary).log_power, found.log_share)


def test_a_slot_reads_the_features_where_its_place_is():
    head, dictionary, found, feature_map, context = _case()
    before = head(feature_map, context, found, dictionary).coordinates
    there, elsewhere = feature_map.clone(), feature_map.clone()
    # The first proposals are the first places of the dictionary, one azimuth after the other.
    there[:, :, 0, 2] += 1.0
    elsewhere[:, :, 5, 11] += 1.0
    assert not torch.equal(head(there, context, found, dictionary).coordinates, before)
    assert torch.equal(head(elsewhere, context, found, dictionary).coordinates, before)


def test_a_place_is_in_the_cell_of_the_nearest_direction():
    dictionary = Dictionary(Config())
    planes = dictionary.coordinates.view(dictionary.shape[0], -1, 3)
    nudged = planes + 0.2 * dictionary.cell * torch.tensor([1.0, -1.0, 1.0])
    assert torch.equal(dictionary.cell_of(nudged), torch.arange(planes.shape[1]).expand(len(planes), -1))


def test_slots_read_in_their_order_and_move_in_sigmas_or_cells():
    head, dictionary, found, feature_map, context = _case()
    # One is known to less than a cell, the others worse.
    sigma = found.sigma.clone()
    sigma[:, 1:] = 10.0
    found = dataclasses.replace(found, sigma=sigma)
    seen = {}
    head.embed.register_forward_hook(lambda module, given, made: seen.update(given=given[0]))
    head.refine.register_forward_hook(lambda module, given, made: seen.update(moves=made))
    slots = head(feature_map, context, found, dictionary)
    K, channels = found.parameters.shape[1], feature_map.shape[1]
    local = seen["given"][:, : channels * K].unflatten(1, (channels, K))
    for k in range(K):
        cell = dictionary.cell_of(found.parameters)[:, k]
        assert torch.equal(local[:, :, k], feature_map.flatten(2)[torch.arange(2), :, cell])
    unit = torch.minimum(sigma, dictionary.cell)
    assert (unit[:, 0] < unit[:, 1]).all()
    moved = unit * seen["moves"].unflatten(1, (K, 3))
    assert torch.allclose(slots.coordinates, found.parameters + moved)
