"""Trace and Hermitian part of batched matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def trace(R: Tensor) -> Tensor:
    """Return the real trace of `... x N x N`, `...` real."""
    return torch.diagonal(R, dim1=-2, dim2=-1).real.sum(-1)


def trace_normalised(R: Tensor) -> Tensor:
    """Scale each Hermitian matrix of `... x N x N` to trace N (an all-zero one becomes NaN)."""
    return R * (R.shape[-1] / trace(R))[..., None, None]


def hermitian_part(R: Tensor) -> Tensor:
    """Return (R + Rᴴ)/2 of `... x N x N`."""
    return (R + R.mH) / 2
