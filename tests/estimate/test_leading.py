"""Block power iteration gives the eigenvectors of the full decomposition, or hands over to it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ris_verified.errors import ShapeError
from ris_verified.estimate import leading
from ris_verified.estimate.leading import leading_subspace
from ris_verified.estimate.spectrum import signal_subspace

N = 40


def _with_eigenvalues(values: list[list[float]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return matrices with these leading eigenvalues, 1e-3 elsewhere, and all their eigenvectors."""
    generator = torch.Generator().manual_seed(3)
    V = torch.linalg.qr(torch.randn(len(values), N, N, dtype=torch.complex128, generator=generator))[0]
    spectrum = torch.full((len(values), N), 1e-3, dtype=torch.float64)
    spectrum[:, : len(values[0])] = torch.tensor(values, dtype=torch.float64)
    return ((V * spectrum[:, None]) @ V.mH).to(dtype), V


def _apart(U: Tensor, V: Tensor) -> float:
    wide = U.to(torch.complex128)
    return float(torch.linalg.matrix_norm(wide @ wide.mH - V @ V.mH).max())


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_separated_eigenvalues_need_no_decomposition(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    R, V = _with_eigenvalues([[9.0, 5.0, 3.0], [4.0, 4.0, 4.0]], dtype)
    monkeypatch.setattr(leading, "signal_subspace", lambda *_: pytest.fail("decomposed in full"))
    U = leading_subspace(R, torch.tensor([3, 3]), 3)
    # An angle of N eps (1 + ‖R‖/gap) for each of three directions, from the iteration and from rounding R.
    assert _apart(U, V[..., :3]) <= 3 * N * torch.finfo(dtype).eps * (1 + 9 / 3)


@pytest.mark.parametrize("values", [[3.0, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4, 2.3], [5.0, 1e-3, 1e-3]])
def test_what_cannot_be_certified_is_decomposed(values: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    R, _ = _with_eigenvalues([values, values], torch.complex128)
    calls = []

    def counted(*given: Tensor | int) -> Tensor:
        calls.append(given)
        return signal_subspace(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(leading, "signal_subspace", counted)
    K = torch.tensor([2, 2])
    U = leading_subspace(R, K, 2)
    assert len(calls) == 1
    assert torch.equal(U, signal_subspace(R, K, 2))


def test_only_the_doubtful_are_decomposed() -> None:
    R, V = _with_eigenvalues([[9.0, 5.0, 0.002, 0.002], [3.0, 2.999, 2.998, 2.997]], torch.complex128)
    K = torch.tensor([2, 2])
    U = leading_subspace(R, K, 2)
    assert torch.equal(U[1], signal_subspace(R, K, 2)[1])
    assert _apart(U[:1], V[:1, :, :2]) <= 2 * N * torch.finfo(torch.float64).eps * (1 + 9 / 5)


def test_columns_beyond_K_are_zero() -> None:
    R, V = _with_eigenvalues([[9.0, 5.0, 3.0], [8.0, 6.0, 4.0]], torch.complex128)
    U = leading_subspace(R, torch.tensor([1, 3]), 4)
    assert bool((U[0, :, 1:] == 0).all())
    assert bool((U[1, :, 3:] == 0).all())
    assert _apart(U[:1], V[:1, :, :1]) <= N * torch.finfo(torch.float64).eps * (1 + 9 / 4)


def test_a_small_matrix_is_decomposed() -> None:
    R = torch.eye(4, dtype=torch.complex128)[None] * torch.tensor([4.0, 3.0, 2.0, 1.0])
    assert torch.equal(leading_subspace(R, torch.tensor([2]), 2), signal_subspace(R, torch.tensor([2]), 2))


def test_a_real_matrix_is_refused() -> None:
    with pytest.raises(ShapeError):
        leading_subspace(torch.zeros(1, N, N), torch.tensor([1]), 1)
