"""Slips in the optimiser's groups that leave them a partition."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from typing import Any

import torch

from ris_verified.audit.faults.fault import Fault
from ris_verified.audit.faults.learning import grouping
from ris_verified.pipeline import Pipeline


def _rescaled(groups: list[dict[str, Any]], cfg: Any) -> list[dict[str, Any]]:
    with torch.no_grad():
        for p in groups[1]["params"]:
            p.mul_(0.5)
    return groups


def _ratio_once(pipeline: Pipeline) -> Pipeline:
    calls = itertools.count()
    later = grouping(lambda g, c: g if next(calls) == 0 else [g[0], {**g[1], "lr": g[0]["lr"]}])
    return later(pipeline)


def _slow_third(g: list[dict[str, Any]], c: Any) -> list[dict[str, Any]]:
    slow = {"name": "slow", "params": g[0]["params"][1::2], "lr": g[0]["lr"] / 100}
    return [{**g[0], "params": g[0]["params"][::2]}, g[1], slow]


def _strayed(g: list[dict[str, Any]], c: Any) -> list[dict[str, Any]]:
    return [
        {**g[0], "params": [*g[0]["params"], g[1]["params"][-1]]},
        {**g[1], "params": g[1]["params"][:-1]},
    ]


def _of_a_copy(pipeline: Pipeline) -> Pipeline:
    return dataclasses.replace(
        pipeline, parameter_groups=lambda model, cfg: pipeline.parameter_groups(copy.deepcopy(model), cfg)
    )


FAULTS = (
    Fault("groups_of_other_names", "RV0401", "body and top",
          grouping(lambda g, c: [{**g[0], "name": "body"}, {**g[1], "name": "top"}])),
    Fault("tensor_in_the_other_group", "RV0401", "a slice is off by one", grouping(_strayed)),
    Fault("slow_third_group", "RV0401", "half of the backbone learns a hundredth", grouping(_slow_third)),
    Fault("groups_of_a_copy", "RV0401", "the optimiser trains another model", _of_a_copy),
    Fault("decay_off_in_backbone", "RV0401", "an option of one group",
          grouping(lambda g, c: [{**g[0], "weight_decay": 0.0}, g[1]])),
    Fault("groups_rescale_weights", "RV0401", "an initialisation that undoes a loaded model", grouping(_rescaled)),
    Fault("ratio_once", "RV0403", "the multiplier is consumed by its first use", _ratio_once),
    Fault("rate_is_a_constant", "RV1604", "the rate of the paper",
          grouping(lambda g, c: [{**g[0], "lr": 3e-4}, {**g[1], "lr": 1.2e-3}])),
    Fault("rate_follows_batch", "RV1604", "an undeclared scaling rule",
          grouping(lambda g, c: [{**x, "lr": x["lr"] * c.train.batch_size / 64} for x in g])),
)  # fmt: skip
