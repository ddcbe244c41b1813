"""First weights of the layers that count: they begin with what the likelihood says of K."""

from __future__ import annotations

import torch
from torch import nn

# Gain of a proposal, in the head's own scale asinh(nats)/2, above which it rather is a source: 2.4 nats; and by how
# much it then moves the logits. Cross-entropy was lowest there (decision 27).
LEVEL, SLOPE = 0.8, 2.0


@torch.no_grad()
def begin_at_likelihood(first: nn.Linear, second: nn.Linear, last: nn.Linear, evidence: int) -> None:
    """Set the layers so that the logit of K is the sum of `SLOPE (gain − LEVEL)` over the first K proposals.

    GELU(x) − GELU(−x) = x carries the sums through both layers exactly. The other units keep what was drawn.

    Args:
        first, second, last: linear layers with GELU between, the last with K_MAX outputs.
        evidence: figures of each proposal, its gain first.
    """
    for k in range(min(last.out_features, first.out_features // 2)):
        ahead, back = 2 * k, 2 * k + 1
        for unit, sign in ((ahead, 1.0), (back, -1.0)):
            first.weight[unit] = 0
            first.weight[unit, : (k + 1) * evidence : evidence] = sign * SLOPE
            first.bias[unit] = -sign * SLOPE * LEVEL * (k + 1)
            second.weight[unit] = 0
            second.weight[unit, ahead], second.weight[unit, back] = sign, -sign
            second.bias[unit] = 0
            last.weight[k, unit] += sign
