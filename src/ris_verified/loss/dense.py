"""What the loss reads of dense N x N matrices, each with its gradient in one pass.

Left to autograd, every elementary step would keep and return a matrix of its own: the memory costs more than the sums.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ris_verified.covariance.trace import trace


class _SquaredDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, R: Tensor, R_true: Tensor) -> Tensor:
        wrong = R - R_true
        ctx.save_for_backward(wrong)
        return squared_norm(wrong)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (wrong,) = ctx.saved_tensors
        return wrong * (2 * gradient)[:, None, None], None


class _Inside(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, R: Tensor, U: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(U)
        return U.mH @ (R @ U), trace(R)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, block: Tensor, total: Tensor) -> tuple[Tensor, None]:
        (U,) = ctx.saved_tensors
        gradient = U @ (block @ U.mH)
        gradient.diagonal(dim1=-2, dim2=-1).add_(total[:, None])
        return gradient, None


def squared_norm(R: Tensor) -> Tensor:
    """Return ‖R‖²_F of `B x N x N` complex, `B` real."""
    norm: Tensor = torch.linalg.vector_norm(torch.view_as_real(R.resolve_conj()).flatten(1), dim=1)
    return norm.square()


def squared_distance(R: Tensor, R_true: Tensor) -> Tensor:
    """Return ‖R − R_true‖²_F, `B` real.

    Args:
        R: `B x N x N` complex.
        R_true: `B x N x N` complex, a constant.
    """
    distance: Tensor = _SquaredDistance.apply(R, R_true)  # type: ignore[no-untyped-call]
    return distance


def inside(R: Tensor, U: Tensor) -> tuple[Tensor, Tensor]:
    """Return UᴴRU and tr R, `B x K x K` complex and `B` real.

    Args:
        R: `B x N x N` complex.
        U: `B x N x K` complex, a constant.
    """
    seen: tuple[Tensor, Tensor] = _Inside.apply(R, U)  # type: ignore[no-untyped-call]
    return seen
