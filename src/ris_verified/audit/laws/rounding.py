"""Measurements disturbed by rounding: what no order of sums can be below."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# How many disturbances are tried, and how much more than the worst of them another order of sums may do.
SHAKES, AMPLIFIED = 3, 8


def shaken(value: Tensor, key: int) -> Tensor:
    """Return a real or complex tensor times 1 + eps·n, n standard normal, eps of the float32 that data are stored in.

    Args:
        value: any shape; NaN stays NaN.
        key: seeds the disturbance.
    """
    import torch

    noise = torch.randn(value.shape, dtype=value.dtype, generator=torch.Generator().manual_seed(key))
    return value * (1 + torch.finfo(torch.float32).eps * noise.to(value.device))
