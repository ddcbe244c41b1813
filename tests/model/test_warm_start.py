"""The K head begins with what the likelihood says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ris_verified.audit.context import KEY, small_config
from ris_verified.config import Config
from ris_verified.data.dataset import scenes_to_batch
from ris_verified.model.network import build_model
from ris_verified.model.warm_start import LEVEL, SLOPE, begin_at_likelihood
from ris_verified.pipeline import Pipeline


@pytest.mark.parametrize("sources", [1, 3, 5])
def test_sums_of_gains_pass_through_both_layers(sources) -> None:
    evidence, width = 5, 24
    layers = nn.Linear(sources * evidence, width), nn.Linear(width, width), nn.Linear(width, sources)
    nn.init.zeros_(layers[2].weight)
    nn.init.zeros_(layers[2].bias)
    begin_at_likelihood(*layers, evidence)
    facts = torch.randn(7, sources, evidence, generator=torch.Generator().manual_seed(1))
    count = nn.Sequential(layers[0], nn.GELU(), layers[1], nn.GELU(), layers[2])
    wanted = (SLOPE * (facts[..., 0] - LEVEL)).cumsum(-1)
    # Sums of as many single-precision terms as a layer has inputs.
    bound = width * torch.finfo(torch.float32).eps * float(wanted.abs().max())
    assert float((count(facts.flatten(1)) - wanted).detach().abs().max()) <= bound


def test_more_sources_than_units_begin_as_far_as_these_go() -> None:
    layers = nn.Linear(10 * 5, 6), nn.Linear(6, 6), nn.Linear(6, 10)
    begin_at_likelihood(*layers, 5)
    assert all(bool(layer.weight.isfinite().all()) for layer in layers)


def test_the_first_cross_entropy_is_far_below_that_of_a_guess() -> None:
    cfg = small_config(Config())
    pipeline, model = Pipeline.default(cfg), build_model(cfg)
    scenes = [pipeline.draw_scene(cfg, KEY + 5, 0, number) for number in range(128)]
    b = scenes_to_batch(scenes, cfg)
    with torch.no_grad():
        out = model(b.y, b.H, b.C, b.H_full)
    each = nn.functional.cross_entropy(out.k_logits, b.K - 1, reduction="none")
    # Three standard errors of the mean.
    assert float(each.mean() + 3 * each.std() / math.sqrt(len(each))) < math.log(cfg.scene.sources_max)
