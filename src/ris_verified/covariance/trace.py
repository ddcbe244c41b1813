"""Traces, inner products and Hermitian parts of batched matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

# Numbers: 1 or 2 MB in single precision stay near two cores, and few blocks make few meetings of their threads.
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
    """Cut `B x …` along B, into one block at least, so that what is made of a block stays in the cache.

    A temporary of the size of R is fresh memory, which costs more than the sum; a block's is used again.
    """
    step = max(1, len(R) if R.is_cuda else BLOCK // max(1, R[:1].numel()))
    return (slice(start, start + step) for start in range(0, max(1, len(R)), step))


def by_blocks(operation: Callable[..., Tensor], A: Tensor, B: Tensor) -> Iterator[Tensor]:
    """Yield operation(A, B) of two real `B x n` in blocks, all in one piece of memory: read each before the next."""
    cuts = list(blocks(A))
    room = torch.empty_like(A[cuts[0]])
    return (operation(A[cut], B[cut], out=room[: len(A[cut])]) for cut in cuts)


def inner(A: Tensor, B: Tensor) -> Tensor:
    """Return Re⟨A, B⟩ = Re tr AᴴB of two `B x N x N` complex, `B` real."""
    return torch.cat([product.sum(1) for product in by_blocks(torch.mul, reals(A), reals(B))])


def hermitian(R: Tensor, scale: Tensor, lift: Tensor | float) -> Tensor:
    """Return scale·(R + Rᴴ)/2 + lift·I of `B x N x N` complex, scale `B` real, lift `B x 1` or a number."""
    both = torch.empty(R.shape, dtype=R.dtype, device=R.device)
    for block in blocks(R):
        torch.add(R[block], R[block].mH, out=both[block])
        reals(both[block]).mul_(scale[block, None] / 2)
    both.diagonal(dim1=-2, dim2=-1).add_(lift)
    return both
