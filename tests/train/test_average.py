"""Averages of the weights beside torch's own and beside the sums that define them."""

from __future__ import annotations

import copy
import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_swa_multi_avg_fn

from ris_verified.train.average import ema, swa

EPS = torch.finfo(torch.float32).eps


def _moved(model: nn.Module, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return _flat(model)


def _flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@given(st.integers(0, 99), st.integers(1, 12))
def test_the_equal_average_is_the_mean_and_what_torch_makes(seed, updates):
    live = nn.Linear(3, 2)
    ours, theirs = swa(live), AveragedModel(live, multi_avg_fn=get_swa_multi_avg_fn())
    seen = []
    for update in range(updates):
        seen.append(_moved(live, 100 * seed + update))
        ours.update_parameters(live)
        theirs.update_parameters(live)
    bound = 8 * updates * EPS * torch.stack(seen).abs().max()
    assert (_flat(ours.module) - torch.stack(seen).mean(0)).abs().max() <= bound
    assert (_flat(ours.module) - _flat(theirs.module)).abs().max() <= bound
    assert int(ours.n_averaged) == updates


@given(st.integers(0, 99), st.integers(1, 40), st.floats(0.0, 0.9999))
def test_the_exponential_average_follows_faster_while_it_is_young(seed, updates, decay):
    live = nn.Linear(3, 2)
    average, wanted, largest = ema(live, decay), torch.zeros(8, dtype=torch.float64), 0.0
    for update in range(updates):
        now = _moved(live, 100 * seed + update)
        average.update_parameters(live)
        kept = min(decay, (1 + update) / (10 + update)) if update else 0.0
        wanted, largest = kept * wanted + (1 - kept) * now.double(), max(largest, float(now.abs().max()))
    assert (_flat(average.module) - wanted).abs().max() <= 8 * updates * EPS * largest


@pytest.mark.parametrize("make", [swa, lambda model: ema(model, 0.9)])
def test_a_copy_counts_for_itself_and_nothing_is_held(make):
    live = nn.Linear(3, 2)
    first = make(live)
    first.update_parameters(live)
    second = copy.deepcopy(first)
    _moved(live, 1)
    second.update_parameters(live)
    assert (int(first.n_averaged), int(second.n_averaged)) == (1, 2)
    assert not torch.equal(_flat(first.module), _flat(second.module))
    gc.disable()
    try:
        gone = weakref.ref(second)
        del second
        assert gone() is None
    finally:
        gc.enable()
