"""Block power iteration gives the eigenvectors of the full decomposition, or hands over to it."""

from __future__ import annotations

import pytest
import torch

from ris_verified.errors import InputError
from ris_verified.estimate import subspace
from ris_verified.estimate.subspace import signal_subspace

N = 120


def _with_eigenvalues(values, dtype=torch.complex128, rest=1e-3):
    """Return matrices with these leading eigenvalues, `rest` elsewhere, and all their eigenvectors."""
    generator = torch.Generator().manual_seed(3)
    V = torch.linalg.qr(torch.randn(len(values), N, N, dtype=torch.complex128, generator=generator))[0]
    spectrum = torch.full((len(values), N), rest, dtype=torch.float64)
    spectrum[:, : len(values[0])] = torch.tensor(values, dtype=torch.float64)
    return ((V * spectrum[:, None]) @ V.mH).to(dtype), V


def _apart(U, V):
    wide = U.to(torch.complex128)
    return float(torch.linalg.matrix_norm(wide @ wide.mH - V @ V.mH).max())


def _full(R, most):
    return torch.linalg.eigh(R)[1].flip(-1)[..., :most]


@pytest.fixture
def decomposed(monkeypatch):
    """Count the matrices that are decomposed in full."""
    sizes = []

    def counted(R, most):
        sizes.append(len(R))
        return _full(R, most)

    monkeypatch.setattr(subspace, "_decomposed", counted)
    return sizes


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("third", [3.0, 4.9])
def test_a_few_directions_above_a_floor_need_no_decomposition(dtype, third, decomposed):
    # 4.9 beside 5 converges as well: both are wanted, and the fourth is far.
    R, V = _with_eigenvalues([[9.0, 5.0, third, 1.0], [4.0, 4.0, 4.0, 0.5]], dtype)
    U = signal_subspace(R, torch.tensor([3, 3]), 3)
    assert not decomposed
    # An angle of N eps ‖R‖/gap for each of three directions, from the iteration and from rounding R.
    assert _apart(U, V[..., :3]) <= 2 * 3 * N * torch.finfo(dtype).eps * 9 / 2


@pytest.mark.parametrize("shape", ["slow", "tie", "none"])
def test_what_cannot_be_certified_is_decomposed(shape, decomposed):
    slow = [9.0, 8.9, *(8.8 - 0.01 * k for k in range(N - 2))]
    values = {"slow": slow, "tie": [5.0, 2.0, 2.0], "none": [0.0]}[shape]
    R, _ = _with_eigenvalues([values, values], rest=0.0)
    K = torch.tensor([2, 2])
    U = signal_subspace(R, K, 2)
    assert decomposed == [2]
    assert torch.equal(U, _full(R, 2))


def test_a_larger_eigenvalue_that_the_iteration_never_meets_is_found(monkeypatch, decomposed):
    R, V = _with_eigenvalues([[9.0, 5.0, 3.0]])
    blind = torch.linalg.qr(V[0, :, 1:24])[0]
    monkeypatch.setattr(subspace, "_start", lambda *_: blind)
    U = signal_subspace(R, torch.tensor([2]), 2)
    assert decomposed == [1]
    assert _apart(U, V[..., :2]) <= 2 * N * torch.finfo(torch.float64).eps * 9


def test_only_the_doubtful_are_decomposed(decomposed):
    R, V = _with_eigenvalues([[9.0, 5.0, 1.0], [5.0, 2.0, 2.0]])
    U = signal_subspace(R, torch.tensor([2, 2]), 2)
    assert decomposed == [1]
    assert torch.equal(U[1], _full(R[1:], 2)[0])
    assert _apart(U[:1], V[:1, :, :2]) <= 2 * 2 * N * torch.finfo(torch.float64).eps * 9 / 4


def test_columns_beyond_K_are_zero():
    R, V = _with_eigenvalues([[9.0, 5.0, 3.0], [8.0, 6.0, 4.0], [7.0, 3.0, 2.0]])
    U = signal_subspace(R, torch.tensor([1, 3, 0]), 4)
    assert bool((U[0, :, 1:] == 0).all())
    assert bool((U[1, :, 3:] == 0).all())
    assert bool((U[2] == 0).all())
    assert _apart(U[:1], V[:1, :, :1]) <= 2 * N * torch.finfo(torch.float64).eps * 9 / 4


def test_a_small_matrix_is_decomposed(decomposed):
    R = torch.eye(4, dtype=torch.complex128)[None] * torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert torch.equal(signal_subspace(R, torch.tensor([2]), 2), _full(R, 2))
    assert decomposed == [1]


def test_more_columns_than_there_are_are_refused():
    with pytest.raises(InputError, match="at most 4"):
        signal_subspace(torch.eye(4, dtype=torch.complex128)[None], torch.tensor([5]), 5)
