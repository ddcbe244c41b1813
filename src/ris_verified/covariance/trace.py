"""Traces and inner products of batched matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def trace(R: Tensor) -> Tensor:
    """Return the real trace of `... x N x N`, `...` real."""
    return torch.diagonal(R, dim1=-2, dim2=-1).real.sum(-1)


def trace_normalised(R: Tensor) -> Tensor:
    """Scale each Hermitian matrix of `... x N x N` to trace N (an all-zero one becomes NaN)."""
    return R * (R.shape[-1] / trace(R))[..., None, None]


def of_trace(A: Tensor) -> Tensor:
    """Scale each `N x K` of `B x N x K` complex so that AAᴴ has trace N; NaN where it is zero."""
    energy = torch.view_as_real(A.resolve_conj()).square().sum((1, 2, 3))
    return A * (A.shape[-2] / energy).sqrt()[:, None, None]


def gram_of_trace(A: Tensor) -> Tensor:
    """Return AAᴴ of `B x N x K` complex, scaled to trace N through A, which is far smaller."""
    A = of_trace(A)
    return A @ A.mH


def inner(A: Tensor, B: Tensor) -> Tensor:
    """Return Re⟨A, B⟩ = Re tr AᴴB of two `B x N x N` complex, `B` real."""
    a, b = (torch.view_as_real(z.resolve_conj()).flatten(1) for z in (A, B))
    return (a * b).sum(1)
