"""The call of a model in training and validation."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from ris_verified.data.batch import Batch, ProposedBatch
from ris_verified.model.output import ModelOutput


@runtime_checkable
class TakesProposals(Protocol):
    """A module that is called with (y, H, C, H_full, proposals) where scenes come with these."""

    takes_proposals: bool


def outputs_of(model: nn.Module, batch: Batch) -> ModelOutput:
    """Run a model on scenes, with what is stored of the likelihood's proposals where it takes them.

    Args:
        model: from `build_model`, or a wrapper of it that averages weights or gradients.
        batch: on the model's device.

    Returns:
        Its `ModelOutput`.
    """
    bare = model.module if isinstance(model, DistributedDataParallel | AveragedModel) else model
    inputs = [batch.y, batch.H, batch.C, batch.H_full]
    if isinstance(batch, ProposedBatch) and isinstance(bare, TakesProposals) and bare.takes_proposals:
        inputs.append(batch.proposals)
    outputs: ModelOutput = model(*inputs)
    return outputs
