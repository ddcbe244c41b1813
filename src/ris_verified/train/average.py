"""Averages of the weights, by torch's utility, without waiting for the device."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class Averaged(AveragedModel):
    """Weights that take a share of the live ones at every update.

    torch hands its functions the count on the device, where reading it would wait for all that is computed there.

    Args:
        model: the live weights.
        share: updates so far → what the next one takes, from 0 to 1; the first copies.
    """

    def __init__(self, model: nn.Module, share: Callable[[int], float]) -> None:
        super().__init__(model)
        self._share = share

    def update_parameters(self, model: nn.Module) -> None:
        """Take the share of the live weights that is due."""
        share = self._share(int(self.n_averaged))
        self.multi_avg_fn = lambda averaged, live, _: torch._foreach_lerp_(averaged, live, share)
        super().update_parameters(model)


def ema(model: nn.Module, decay: float) -> Averaged:
    """Return an exponential average; a young one follows faster, or a short run would keep its random start."""
    return Averaged(model, lambda count: 1 - min(decay, (1 + count) / (10 + count)))


def swa(model: nn.Module) -> Averaged:
    """Return an equal average of all that it has seen."""
    return Averaged(model, lambda count: 1 / (1 + count))
