"""Slips in where a training begins: a K head that has to learn what the likelihood knows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ris_verified.audit.faults.fault import Fault

if TYPE_CHECKING:
    from ris_verified.config import Config
    from ris_verified.pipeline import Pipeline


def _begun(change: Callable[[Tensor, Tensor], None]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant whose network has other first weights in the layers that count."""

    def plant(pipeline: Pipeline) -> Pipeline:
        def build_model(cfg: Config) -> nn.Module:
            model: Any = pipeline.build_model(cfg)
            with torch.no_grad():
                change(model.head.count[-1].weight, model.head.count[-1].bias)
            made: nn.Module = model
            return made

        return dataclasses.replace(pipeline, build_model=build_model)

    return plant


def _cold(weight: Tensor, bias: Tensor) -> None:
    nn.init.normal_(weight, std=1e-3, generator=torch.Generator().manual_seed(0))


def _turned(weight: Tensor, bias: Tensor) -> None:
    weight.neg_()


def _one_more(weight: Tensor, bias: Tensor) -> None:
    for part in (weight, bias):
        part.copy_(part.roll(1, 0))


FAULTS = (
    Fault("count_begins_cold", "RV1405", "the last layer is drawn like any other", _begun(_cold)),
    Fault("count_begins_upside_down", "RV1405", "evidence counts against sources", _begun(_turned)),
    Fault("count_begins_one_too_high", "RV1405", "logits are numbered from zero", _begun(_one_more)),
)
