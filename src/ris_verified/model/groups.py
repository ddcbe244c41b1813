"""The two optimiser groups."""

from __future__ import annotations

from typing import Any

from torch import nn

from ris_verified.config import Config
from ris_verified.errors import InvariantError


def parameter_groups(model: nn.Module, cfg: Config) -> list[dict[str, Any]]:
    """Split all parameters by name into backbone and head; the head learns faster.

    Args:
        model: parameters named `backbone.*` and `head.*`.
        cfg: reads `train.learning_rate`, `train.head_multiplier` and `contracts`.

    Returns:
        Two dictionaries with keys name, params, lr; a partition of all parameters.

    Raises:
        InvariantError: a parameter is frozen or belongs to neither group, or a group is empty.
    """
    rates = {
        "backbone": cfg.train.learning_rate,
        "head": cfg.train.learning_rate * cfg.train.head_multiplier,
    }
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
    for name, parameter in model.named_parameters():
        group = name.split(".")[0]
        if group not in groups or not parameter.requires_grad:
            raise InvariantError(
                "is frozen" if group in groups else "belongs to no group",
                where=f"parameter {name}",
                expected="a trainable parameter named backbone.* or head.*",
            )
        groups[group].append(parameter)
    for name, parameters in groups.items():
        if not parameters:
            raise InvariantError("is empty", where=f"group {name}", expected="at least one parameter")
    return [{"name": name, "params": params, "lr": rates[name]} for name, params in groups.items()]


def group_sizes(groups: list[dict[str, Any]]) -> dict[str, int]:
    """Return the number of parameters of each group by name."""
    return {group["name"]: sum(p.numel() for p in group["params"]) for group in groups}
