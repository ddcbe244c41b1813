"""Assigning slots to sources inside the loss, the same for every order of the sources."""

from __future__ import annotations

import functools
import itertools

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

ENUMERABLE = 6


@functools.cache
def _permutations(count: int) -> Tensor:
    return torch.tensor(list(itertools.permutations(range(count))))


@torch.no_grad()
def assign(cost: Tensor) -> Tensor:
    """Return the cheapest assignment of slots to sources.

    Args:
        cost: `B x S x S` real, slot by source; zero columns for absent sources.

    Returns:
        `B x S` int64, the slot of each source. Up to six sources all orders are tried on the
        device; beyond, the Hungarian method runs on the host.
    """
    S = cost.shape[-1]
    if S > ENUMERABLE:
        rows = [linear_sum_assignment(matrix.T.cpu().numpy())[1] for matrix in cost]
        return torch.stack([torch.as_tensor(row) for row in rows]).to(cost.device)
    orders = _permutations(S).to(cost.device)
    total = cost[:, orders, torch.arange(S, device=cost.device)].sum(-1)
    return orders[total.argmin(-1)]
