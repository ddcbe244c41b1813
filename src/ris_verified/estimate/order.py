"""The number of sources from measurement-domain residuals."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ris_verified.config import Config
from ris_verified.estimate.search import nested_search


def order_criterion(residual: Tensor, cfg: Config) -> Tensor:
    """Return BIC or AICc of nested fits; the smallest wins.

    n log(RSS_k/n) + penalty, n = 2LM real data, p = 3k + 2k · (snapshots with symbols of their own) real
    unknowns; the penalty is p log n (BIC) or 2p + 2p(p+1)/(n−p−1) (AICc).

    Args:
        residual: `K_MAX x B` real, RSS of fits with 1 … K_MAX sources.
        cfg: reads `estimate.order_criterion` and `scene`.

    Returns:
        `K_MAX x B` real.

    Source: Schwarz, Ann. Stat. 6 (1978); Hurvich and Tsai, Biometrika 76 (1989).
    """
    s = cfg.scene
    n = 2 * s.snapshots * s.antennas
    own = 1 if s.symbols == "constant" else s.snapshots
    k = torch.arange(1, len(residual) + 1, dtype=residual.dtype, device=residual.device)[:, None]
    p = (3 + 2 * own) * k
    if cfg.estimate.order_criterion == "aicc":
        penalty = 2 * p + 2 * p * (p + 1) / (n - p - 1).clamp_min(1)
    else:
        penalty = p * math.log(n)
    return n * torch.log(residual / n) + penalty


def estimate_order(y: Tensor, H_full: Tensor, C: Tensor, cfg: Config) -> Tensor:
    """Return the number of sources, from 1 to K_MAX.

    Args:
        y: `B x L x M` complex.
        H_full: `B x M x N` complex.
        C: `B x L x N` complex.
        cfg: reads `estimate`, `scene` and `array`.

    Returns:
        `B` int64.
    """
    residual = nested_search(y, H_full, C, cfg).residual
    return order_criterion(residual.double(), cfg).argmin(0) + 1
