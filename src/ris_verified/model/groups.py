"""The two optimiser groups."""

from __future__ import annotations

from typing import Any

from torch import nn

from ris_verified.config import Config
from ris_verified.errors import InvariantError

NAMES = ("backbone", "head")


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
    rates = dict(
        zip(NAMES, (cfg.train.learning_rate, cfg.train.learning_rate * cfg.train.head_multiplier), strict=True)
    )
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


def named_groups(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return optimiser groups of any pipeline as they are, whose names are what the rest of a run calls them by.

    Raises:
        InvariantError: the names are not backbone and head.
    """
    names = sorted(str(group.get("name")) for group in groups)
    if names != sorted(NAMES):
        raise InvariantError(
            f"groups are named {', '.join(names)}",
            where="parameter_groups",
            expected=" and ".join(NAMES),
            remedy='give each of the two groups its "name"; what is logged and printed is found by it',
        )
    return groups


def group_sizes(groups: list[dict[str, Any]]) -> dict[str, int]:
    """Return the number of parameters of each group by name."""
    return {group["name"]: sum(p.numel() for p in group["params"]) for group in groups}
