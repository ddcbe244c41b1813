"""What the loss reads of dense N x N matrices, each with its gradient in one pass.

Left to autograd, every elementary step would keep and return a matrix of its own: the memory costs more than the sums.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ris_verified.covariance.trace import by_blocks, reals, trace


class _Read(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, R: Tensor, R_true: Tensor | None, U: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.save_for_backward(R, R_true, U)
        ctx.set_materialize_grads(False)
        distance = None if R_true is None else _distance(R, R_true)
        return distance, None if U is None else (U.mH @ R) @ U, trace(R)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, distance: Tensor | None, block: Tensor | None, total: Tensor | None) -> Any:
        R, R_true, U = ctx.saved_tensors
        if distance is None:
            gradient = torch.zeros_like(R, memory_format=torch.contiguous_format)
        else:
            gradient = (R - R_true).to(R.dtype).contiguous()
            reals(gradient).mul_(2 * distance[:, None])
        if block is not None:
            gradient.baddbmm_(U @ block, U.mH)
        if total is not None:
            gradient.diagonal(dim1=-2, dim2=-1).add_(total[:, None])
        return gradient, None, None


def _distance(R: Tensor, R_true: Tensor) -> Tensor:
    apart = by_blocks(torch.sub, reals(R), reals(R_true))
    return torch.cat([torch.linalg.vector_norm(wrong, dim=1).square() for wrong in apart])


def squared_norm(R: Tensor) -> Tensor:
    """Return ‖R‖²_F of `B x N x N` complex, `B` real."""
    norm: Tensor = torch.linalg.vector_norm(reals(R), dim=1)
    return norm.square()


def squared_distance(R: Tensor, R_true: Tensor) -> Tensor:
    """Return ‖R − R_true‖²_F, `B` real.

    Args:
        R: `B x N x N` complex.
        R_true: `B x N x N` complex, a constant.
    """
    distance: Tensor = _Read.apply(R, R_true, None)[0]  # type: ignore[no-untyped-call]
    return distance


def inside(R: Tensor, U: Tensor) -> tuple[Tensor, Tensor]:
    """Return UᴴRU and tr R, `B x K x K` complex and `B` real.

    Args:
        R: `B x N x N` complex.
        U: `B x N x K` complex, a constant.
    """
    _, block, total = _Read.apply(R, None, U)  # type: ignore[no-untyped-call]
    return block, total


def read(R: Tensor, R_true: Tensor, U: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return `squared_distance` and what `inside` returns, with one matrix of gradients for the three.

    Args:
        R: `B x N x N` complex.
        R_true: `B x N x N` complex, a constant.
        U: `B x N x K` complex, a constant.
    """
    seen: tuple[Tensor, Tensor, Tensor] = _Read.apply(R, R_true, U)  # type: ignore[no-untyped-call]
    return seen
