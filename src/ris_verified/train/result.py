"""What a training run leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves.

    Args:
        model: the best validated weights, in evaluation mode.
        weights: their file.
        history: one record an epoch: epoch, step, train loss, validation figures, rate, skipped steps so far.
        best_epoch: 1-based epoch of the weights, the one of highest `merit`.
        skipped: steps skipped for non-finite numbers.
        scenes_per_second: training scenes over time in steps, validation excluded.
    """

    model: nn.Module
    weights: Path
    history: list[dict[str, Any]]
    best_epoch: int
    skipped: int
    scenes_per_second: float


def merit(validated: Mapping[str, float]) -> float:
    """Return by what epochs are compared, the mean of subspace capture and order accuracy.

    The likelihood's proposals settle most of the capture before training, so it alone would choose by its rounding.

    Args:
        validated: figures of `validate`.
    """
    return (validated["capture"] + validated["order"]) / 2
