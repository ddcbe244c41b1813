"""Warm-up and cosine decay, and the order in which a curriculum shows scenes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ris_verified.config import Config, TrainConfig

FLOOR = 0.02


def rate_factor(step: int, total: int, train: TrainConfig) -> float:
    """Return the factor on both groups' rates at one step.

    Linear from 1/warm-up to 1 over the first `warmup_share` of all steps, then half a cosine down
    to 0.02.

    Args:
        step: 0-based optimiser step.
        total: number of steps of the run.
        train: reads `warmup_share`.

    Returns:
        A factor in (0, 1].
    """
    warmup = max(1, round(train.warmup_share * total))
    if step < warmup:
        return (step + 1) / warmup
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * done)) / 2


def epoch_order(K: Tensor, scenes: int, cfg: Config, epoch: int) -> Tensor:
    """Return the order of one epoch's scenes, from seed and epoch alone.

    Args:
        K: number of sources by index, of all scenes that are stored.
        scenes: how many of them an epoch shows.
        cfg: reads `seed` and `train`.
        epoch: 0-based.

    Returns:
        `scenes` int64, each index once.
    """
    generator = torch.Generator().manual_seed((cfg.seed * 1_000_003 + epoch) % 2**63)
    return curriculum_order(torch.randperm(scenes, generator=generator), K, epoch, cfg.train)


def curriculum_order(order: Tensor, K: Tensor, epoch: int, train: TrainConfig) -> Tensor:
    """Show scenes with few sources first while the curriculum lasts.

    The shuffled order is sorted by K plus a spread that grows to the full range of K over the first
    `curriculum_share` of all scenes that the run shows, so the sorting fades out. Where that share ends within an
    epoch, the scenes after it stay shuffled.

    Args:
        order: `S` int64, shuffled indices.
        K: `S` int64, number of sources by index.
        epoch: 0-based.
        train: reads `curriculum_share` and `epochs`.

    Returns:
        `S` int64, the same indices.
    """
    lasts = train.curriculum_share * train.epochs
    first = order[: math.floor(len(order) * min(1.0, max(0.0, lasts - epoch)))]
    if len(first) == 0:
        return order
    spread = float(K.max() - K.min() + 1) * epoch / lasts
    # Where a shuffled scene stands is its share of the spread.
    sorted_first = first[torch.argsort(K[first] + spread * torch.linspace(0, 1, len(first)), stable=True)]
    return torch.cat([sorted_first, order[len(first) :]])
