"""The number of sources from nested fits in the measurement domain."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ris_verified.config import Config


def order_criterion(residual: Tensor, deviance: Tensor, cfg: Config) -> Tensor:
    """Return the criterion of `estimate.order_criterion` for nested fits; the smallest wins.

    `marginal`: 2 deviance + 2k log G, with the symbols integrated out. A source costs the logarithm of the number of
    places that noise alone could choose from, the cells between the points of the search grid. A single set, of
    constant symbols, is too few to integrate over, and its two numbers count by Akaike: 2k more each.
    `model` and `auto` ask the K head, where there is one; nested fits then count as for `marginal`.
    `bic`, `aicc`: n log(RSS_k/n) + penalty with the symbols as unknowns: n = 2LM real data, p = 3k + 2k ·
    (snapshots with symbols of their own); the penalty is p log n (BIC) or 2p + 2p(p+1)/(n−p−1) (AICc).

    Args:
        residual: `K_MAX x B` real, RSS of fits with 1 … K_MAX sources.
        deviance: `K_MAX x B` real, minus the log-likelihood of each with Gaussian symbols.
        cfg: reads `estimate.order_criterion`, `estimate.search_*` and `scene`.

    Returns:
        `K_MAX x B` float64.

    Source: Rissanen, Automatica 14 (1978), the cost of a choice; Akaike, IEEE Trans. Autom. Control 19 (1974);
    Schwarz, Ann. Stat. 6 (1978); Hurvich and Tsai, Biometrika 76 (1989).
    """
    s, e = cfg.scene, cfg.estimate
    k = torch.arange(1, len(residual) + 1, dtype=torch.float64, device=residual.device)[:, None]
    if cfg.estimate.order_criterion not in ("bic", "aicc"):
        places = (e.search_azimuth - 1) * (e.search_elevation - 1) * max(e.search_range - 1, 1)
        return 2 * (deviance.double() + k * (math.log(places) + (2 if s.symbols == "constant" else 0)))
    n = 2 * s.snapshots * s.antennas
    p = (3 + 2 * (1 if s.symbols == "constant" else s.snapshots)) * k
    if cfg.estimate.order_criterion == "aicc":
        penalty = 2 * p + 2 * p * (p + 1) / (n - p - 1).clamp_min(1)
    else:
        penalty = p * math.log(n)
    return n * torch.log(residual.double() / n) + penalty


def chosen_order(residual: Tensor, deviance: Tensor, cfg: Config) -> Tensor:
    """Return the number of sources that nested fits speak for, `B` int64, from 1; arguments as `order_criterion`."""
    return order_criterion(residual, deviance, cfg).argmin(0) + 1
