"""What a study samples: configuration fields and their distributions, as data."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from ris_verified.errors import ConfigError

Space = Mapping[str, BaseDistribution]

NARROW: Space = MappingProxyType(
    {
        "train.learning_rate": FloatDistribution(1e-4, 4e-4, log=True),
        "train.batch_size": IntDistribution(64, 80, step=8),
        "model.dropout": FloatDistribution(0.20, 0.32),
        "loss.covariance": FloatDistribution(0.10, 0.25),
        "loss.angle": FloatDistribution(0.5, 1.0),
        "loss.range": FloatDistribution(0.3, 0.6),
        "loss.order": FloatDistribution(0.05, 0.25),
        "estimate.mle_iterations": IntDistribution(10, 40, step=5),
        "estimate.mle_snr_threshold_db": FloatDistribution(4.0, 10.0),
    }
)

WIDE: Space = MappingProxyType(
    {
        **NARROW,
        # Each number of heads divides each width, so every combination is a valid model.
        "model.width": CategoricalDistribution((448, 512)),
        "model.heads": CategoricalDistribution((4, 8, 16)),
        "model.dictionary_range": IntDistribution(4, 8),
        "estimate.grid_range": IntDistribution(4, 12),
        "estimate.newton_iterations": IntDistribution(5, 15),
        "estimate.newton_step": FloatDistribution(0.3, 1.0),
    }
)

SPACES: Mapping[str, Space] = MappingProxyType({"wide": WIDE, "narrow": NARROW})


def suggest(trial: optuna.trial.BaseTrial, space: Space) -> dict[str, Any]:
    """Sample every field of a space.

    Args:
        trial: of the study.
        space: dotted field name → distribution.

    Returns:
        Dotted field name → value.

    Raises:
        ConfigError: a distribution of another kind.
    """
    return {name: _one(trial, name, distribution) for name, distribution in space.items()}


def _one(trial: optuna.trial.BaseTrial, name: str, distribution: BaseDistribution) -> Any:
    match distribution:
        case FloatDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_float(name, low, high, step=step, log=log)
        case IntDistribution(low=low, high=high, step=step, log=log):
            return trial.suggest_int(name, low, high, step=step, log=log)
        case CategoricalDistribution(choices=choices):
            return trial.suggest_categorical(name, choices)
    raise ConfigError(f"{type(distribution).__name__}", where=name, expected="a float, integer or categorical one")
