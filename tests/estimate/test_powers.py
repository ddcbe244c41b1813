"""Powers by the fixed point against the likelihood that they are to raise."""

from __future__ import annotations

import math

import pytest
import torch

from ris_verified.config import Config, SceneConfig
from ris_verified.estimate.measurement import Measurement
from ris_verified.estimate.powers import LEAST, source_powers

L, M, N = 200, 6, 9


def _problem(powers, noise, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.complex128, generator=generator)

    columns = normal(2, L, M, len(powers))
    symbols = normal(2, L, len(powers)) * torch.tensor(powers).sqrt()
    y = (columns @ symbols[..., None])[..., 0] + math.sqrt(noise) * normal(2, L, M)
    cfg = Config(scene=SceneConfig(antennas=M, snapshots=L, sources_max=len(powers)))
    return columns, Measurement(y, normal(2, M, N), normal(2, L, N), cfg)


def _minus_log_likelihood(columns, data, p, noise):
    R = noise[:, None, None, None] * torch.eye(M) + (columns * p[:, None, None]) @ columns.mH
    fit = (data.y.conj()[:, :, None] @ torch.linalg.solve(R, data.y[..., None])).real.sum()
    return fit + torch.linalg.slogdet(R).logabsdet.sum()


def _settled(columns, data, rounds=400):
    one = data.energy / data.rows
    return source_powers(columns, data, one[:, None].expand(-1, columns.shape[-1]), one, rounds)


def test_the_fixed_point_is_a_summit_of_the_likelihood():
    columns, data = _problem([2.0, 0.5, 0.1], 0.3)
    p, noise = (value.requires_grad_() for value in _settled(columns, data))
    slopes = torch.autograd.grad(_minus_log_likelihood(columns, data, p, noise), (p, noise))
    # In units of the unknown itself, against the number of terms that cancel.
    for value, slope in zip((p, noise), slopes, strict=True):
        assert (slope * value).abs().max() <= 1e-6 * L * M


@pytest.mark.parametrize("noise", [0.01, 1.0])
def test_it_finds_the_powers_that_made_the_measurements(noise):
    true = torch.tensor([3.0, 1.0], dtype=torch.float64)
    columns, data = _problem(true.tolist(), noise)
    p, found = _settled(columns, data)
    # An average of L squares of complex normals deviates by 1/√L; five of these.
    assert ((p / true - 1).abs() <= 5 * (1 + noise) / math.sqrt(L)).all()
    assert ((found / noise - 1).abs() <= 5 / math.sqrt(L)).all()


def test_what_explains_nothing_fades():
    columns, data = _problem([1.0, 0.0], 0.1)
    p, _ = _settled(columns, data)
    assert (p[:, 1] < 0.02 * p[:, 0]).all()
    assert (p[:, 1] >= LEAST * p[:, 0]).all()
