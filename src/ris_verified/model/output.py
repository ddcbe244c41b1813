"""What a model returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class ModelOutput:
    """Output of a model's forward pass.

    Args:
        cov_fact_angle: `B x (N·K_MAX·2)` real, memory order element, source, (re, im).
        cov_fact_range: `B x (N·K_MAX·2)` real, same order.
        k_logits: `B x K_MAX` real, entry k − 1 for k sources.
        angles: `B x K_MAX x 2` real, azimuth and elevation of each slot, radians.
        ranges: `B x K_MAX` real, metres.
    """

    cov_fact_angle: Tensor
    cov_fact_range: Tensor
    k_logits: Tensor
    angles: Tensor
    ranges: Tensor
