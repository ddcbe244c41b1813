"""What changes while training runs, and what one step reports."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ris_verified.config import Config, TrainConfig
from ris_verified.model.groups import named_groups
from ris_verified.pipeline import Pipeline
from ris_verified.train.average import ema, swa
from ris_verified.train.ranks import Ranks
from ris_verified.train.schedule import rate_factor

ALONE = Ranks()


@dataclass(frozen=True)
class StepReport:
    """What one optimiser step did; tensors are detached scalars.

    Args:
        loss: mean over the accumulated micro-batches.
        terms: unweighted terms by name.
        nmse: covariance error of what the loss read.
        gradient_norm: before clipping; not finite when the step was skipped for its gradient.
        learning_rates: by group, the rates that the optimiser used.
        skipped: True when a non-finite loss or gradient kept weights and averages untouched.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    nmse: Tensor
    gradient_norm: Tensor
    learning_rates: dict[str, float]
    skipped: bool


@dataclass
class TrainState:
    """Model, optimiser, schedule, averages and counters.

    Args:
        model: the live weights.
        optimizer: AdamW over the pipeline's two groups, in their order.
        scheduler: the rate factor of `rate_factor`, stepped once an optimiser step.
        ema: exponential average, or None.
        swa: equal average over the last `swa_share` of the steps, or None.
        total_steps: length of the run.
        step: optimiser steps tried so far, skipped ones included.
        skipped: steps that were skipped.
        consecutive: skipped steps in a row.
        parts: into how many a batch is split at least; doubled whenever memory runs out.
        ranks: the processes of the run.
        replica: what runs forward: the model, or its wrapper that averages gradients over the processes.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    ema: AveragedModel | None
    swa: AveragedModel | None
    total_steps: int
    replica: nn.Module
    ranks: Ranks = ALONE
    step: int = 0
    skipped: int = 0
    consecutive: int = 0
    parts: int = 1

    @classmethod
    def create(
        cls,
        pipeline: Pipeline,
        *,
        total_steps: int,
        device: torch.device | str = "cpu",
        model: nn.Module | None = None,
        ranks: Ranks = ALONE,
    ) -> TrainState:
        """Build everything from the pipeline's configuration, around `model` where one is given."""
        train = pipeline.config.train
        model = (pipeline.build_model(pipeline.config) if model is None else model).to(device)
        groups = named_groups(pipeline.parameter_groups(model, pipeline.config))
        optimizer = torch.optim.AdamW(groups, weight_decay=train.weight_decay, fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_factor(step, total_steps, pipeline.config.train)
        )
        means = ema(model, train.ema_decay) if train.ema_decay else None, swa(model) if train.swa_share else None
        return cls(model, optimizer, scheduler, *means, total_steps, ranks.parallel(model), ranks)

    @property
    def best(self) -> nn.Module:
        """The weights that are validated and saved: SWA once it began, else EMA, else live."""
        if self.swa is not None and int(self.swa.n_averaged):
            return _module(self.swa)
        return self.model if self.ema is None else _module(self.ema)

    def rates(self) -> dict[str, float]:
        """Return the current learning rate of each group by name."""
        return {group["name"]: float(group["lr"]) for group in self.optimizer.param_groups}

    def update_averages(self, train: TrainConfig) -> None:
        """Fold the live weights into EMA and, near the end, SWA."""
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        if self.swa is not None and self.step + 1 >= (1 - train.swa_share) * self.total_steps:
            self.swa.update_parameters(self.model)


def _module(averaged: AveragedModel) -> nn.Module:
    module: nn.Module = averaged.module
    return module


def autocast_dtype(cfg: Config, device: torch.device) -> torch.dtype | None:
    """Return bfloat16 where the configuration and the hardware ask for it, else None."""
    if cfg.train.precision != "auto":
        return torch.bfloat16 if cfg.train.precision == "bfloat16" else None
    if device.type == "cuda":
        # Emulated on older accelerators it is slower than single precision.
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    fast = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast else None
