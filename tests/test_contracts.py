"""What stages return is checked: a sound covariance passes, each broken law is named with its place in the batch."""

from __future__ import annotations

import pytest
import torch

from ris_verified.contracts import _figures, _probes, check_covariance
from ris_verified.errors import InvariantError

N = 30


def _sound(rank, dtype=torch.complex64):
    F = torch.randn(4, N, rank, dtype=dtype, generator=torch.Generator().manual_seed(rank))
    R = F @ F.mH
    return R * (N / torch.diagonal(R, dim1=1, dim2=2).real.sum(1))[:, None, None]


def _vectors(size):
    parts = _probes(size, torch.complex128, torch.device("cpu"))[0]
    return torch.complex(parts[::2], parts[1::2])


def _off(change):
    R = _sound(5)
    change(R[2])
    return R


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("rank", [1, 5, N])
def test_a_sound_covariance_passes_in_any_layout(rank, dtype):
    R = _sound(rank, dtype)
    check_covariance(R, "R")
    check_covariance(R.mH, "R")
    check_covariance(R.conj(), "R")


@pytest.mark.parametrize(
    ("law", "change"),
    [
        ("not Hermitian", lambda R: R[3, 7].add_(0.1)),
        ("not Hermitian", lambda R: R[7, 3].add_(0.1j)),
        ("not Hermitian", lambda R: R.triu_().add_(R.triu(1).mT)),
        ("not Hermitian", lambda R: R.diagonal().add_(1e-2j * torch.linspace(-1, 1, N))),
        ("not positive semidefinite", lambda R: R.mul_(-9).diagonal().add_(10)),
        ("trace is not N", lambda R: R.mul_(1.001)),
        ("not finite: the trace is nan", lambda R: R[0, 0].fill_(torch.nan)),
        ("not finite: a form is nan", lambda R: R[0, 1].fill_(torch.inf)),
    ],
)
def test_a_broken_law_is_named_with_its_place(law, change):
    with pytest.raises(InvariantError, match=rf"R_x\[2\]: {law}"):
        check_covariance(_off(change), "R_x")


@pytest.mark.parametrize("sign", [1, -1])
def test_either_probe_shows_a_negative_direction(sign):
    v, w = _vectors(N)
    R = torch.eye(N, dtype=torch.complex128) + sign * 3 * (torch.outer(v, v.conj()) - torch.outer(w, w.conj())) / N
    with pytest.raises(InvariantError, match="not positive semidefinite"):
        check_covariance(R[None], "R")


def test_what_is_compared_are_the_forms_of_both_probes_and_the_trace():
    R = torch.randn(3, N, N, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    v, w = _vectors(N)
    vv, ww, vw, wv = (a.conj() @ R @ b for a, b in ((v, v), (w, w), (v, w), (w, v)))
    trace, skew = torch.diagonal(R, dim1=1, dim2=2).sum(1), vw - wv.conj()
    expected = [trace.real, trace.imag, 2 * vv.imag, 2 * ww.imag, skew.real, skew.imag, vv.real, ww.real]
    # Sums of N² products.
    bound = torch.finfo(torch.float64).eps * N**2
    torch.testing.assert_close(_figures(R), torch.stack(expected, 1), rtol=0, atol=bound)
