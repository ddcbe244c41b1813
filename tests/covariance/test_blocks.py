"""What is summed block by block is what is summed at once."""

from __future__ import annotations

import pytest
import torch

import ris_verified.covariance.trace as stage
from ris_verified.config import ArrayConfig, Config
from ris_verified.covariance.blend import blend
from ris_verified.covariance.trace import gram_of_trace, hermitian, inner
from ris_verified.loss.dense import squared_distance


# Two scenes in a block, the last one alone; then every scene alone.
@pytest.mark.parametrize("scenes", [2, 1])
def test_blocks_change_neither_values_nor_gradients(monkeypatch, scenes):
    cfg = Config(array=ArrayConfig(horizontal=3, vertical=3))
    generator = torch.Generator().manual_seed(4)
    P, S, T = (gram_of_trace(torch.randn(5, 9, 3, dtype=torch.complex128, generator=generator)) for _ in range(3))
    rough = torch.randn(5, 9, 9, dtype=torch.complex128, generator=generator)

    def figures():
        leaf = P.clone().requires_grad_()
        made = blend(leaf, S, cfg)
        distance = squared_distance(made.R, T)
        (distance.sum() + (rough.conj() * made.R).real.sum()).backward()
        return (
            made.R.detach(),
            distance.detach(),
            leaf.grad,
            inner(rough, T),
            hermitian(rough, torch.ones(len(rough)), 0.5),
        )

    whole = figures()
    # The blocks of `inner` are counted in reals.
    monkeypatch.setattr(stage, "BLOCK", 2 * 81 * scenes)
    for cut, once in zip(figures(), whole, strict=True):
        bound = 81 * torch.finfo(torch.float64).eps * float(once.abs().max())
        assert torch.allclose(cut, once, rtol=0, atol=bound)


def test_no_scene_is_a_block_of_none():
    none = torch.zeros(0, 9, 9, dtype=torch.complex64)
    assert inner(none, none).shape == (0,)
    assert hermitian(none, torch.ones(0), 0.5).shape == none.shape
