"""The head on proposals made by hand: what it takes from them as it is."""

from __future__ import annotations

import torch

from ris_verified.config import Config
from ris_verified.model.dictionary import Dictionary
from ris_verified.model.heads import Head
from ris_verified.model.proposals import Proposals


def test_slots_have_the_powers_of_the_likelihood_and_a_doubtful_choice_less():
    cfg = Config()
    K, m = cfg.scene.sources_max, cfg.model
    generator = torch.Generator().manual_seed(0)
    powers = torch.randn(2, K, generator=generator).log_softmax(-1)
    level = torch.full((2, K), -0.5)
    doubt = level.clone()
    doubt[:, 1] -= 2.0
    head, dictionary = Head(cfg).eval(), Dictionary(cfg)
    feature_map = torch.randn(2, m.channels, m.dictionary_elevation, m.dictionary_azimuth, generator=generator)
    tokens = torch.randn(2, 10, m.width, generator=generator)

    def slots(chosen):
        places, cells = dictionary.coordinates[:K].expand(2, -1, -1), torch.arange(K).expand(2, -1)
        found = Proposals(places, 0.01 + torch.zeros(2, K, 3), powers, chosen, torch.ones(2, K), -torch.ones(2), cells)
        return head(feature_map, tokens, found, dictionary).log_power

    sure, unsure = slots(level), slots(doubt)
    bound = 1e2 * torch.finfo(torch.float32).eps
    assert (sure - powers).abs().max() <= bound
    assert (unsure[:, 1] < sure[:, 1]).all()
    # Among the others nothing changes but their sum.
    others = (unsure - sure)[:, [0, 2, 3, 4]]
    assert (others - others[:, :1]).abs().max() <= bound
