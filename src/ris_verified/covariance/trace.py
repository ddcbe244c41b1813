"""Traces, inner products and Hermitian parts of batched matrices."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

# Elements: 2 MB in single precision stay near two cores, and few blocks make few meetings of their threads.
BLOCK = 2**18


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


def reals(R: Tensor) -> Tensor:
    """Return `B x N x N` complex as `B x 2N²` real, in the same memory where R is contiguous."""
    return torch.view_as_real(R.resolve_conj()).flatten(1)


def blocks(R: Tensor) -> Iterator[slice]:
    """Cut `B x N x N` complex along B, so that what is made of a block stays in the cache.

    A temporary of the size of R is fresh memory, which costs more than the sum; a block's is used again.
    """
    step = len(R) if R.is_cuda else max(1, BLOCK // max(1, R[0].numel()))
    return (slice(start, start + step) for start in range(0, len(R), step))


def inner(A: Tensor, B: Tensor) -> Tensor:
    """Return Re⟨A, B⟩ = Re tr AᴴB of two `B x N x N` complex, `B` real."""
    return torch.cat([(reals(A[block]) * reals(B[block])).sum(1) for block in blocks(A)])


def plus_adjoint(R: Tensor) -> Tensor:
    """Return R + Rᴴ of `B x N x N` complex, contiguous."""
    both = torch.empty(R.shape, dtype=R.dtype, device=R.device)
    for block in blocks(R):
        torch.add(R[block], R[block].mH, out=both[block])
    return both
