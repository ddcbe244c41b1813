"""Validation: the training loss on the same R_blend, and how much of the truth R_blend holds."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from ris_verified.covariance.capture import subspace_capture
from ris_verified.data.batch import Batch
from ris_verified.mode import evaluating
from ris_verified.pipeline import Pipeline


@torch.no_grad()
def validate(pipeline: Pipeline, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
    """Return mean loss, NMSE, subspace capture and order accuracy; the mode of each part of the model is restored.

    Args:
        pipeline: the stages; its `forward` is the one that training runs.
        model: what is validated is what is saved.
        batches: on the model's device.

    Returns:
        `loss`, `nmse`, `capture` (R_blend) and `order` (share of scenes with K right).
    """
    sums = {"loss": 0.0, "nmse": 0.0, "capture": 0.0, "order": 0.0}
    count = 0
    with evaluating(model):
        for batch in batches:
            outputs, blended = pipeline.forward(model, batch)
            result = pipeline.loss(outputs, blended.R_pred, batch, pipeline.config, R_blend=blended.R, training=False)
            capture = subspace_capture(blended.R, batch.ptr, pipeline.config.array)
            right = outputs.k_logits.argmax(-1) + 1 == batch.K
            sums["loss"] += float(result.total) * len(batch)
            sums["nmse"] += float(result.nmse) * len(batch)
            sums["capture"] += float(capture.sum())
            sums["order"] += float(right.sum())
            count += len(batch)
    return {name: value / max(count, 1) for name, value in sums.items()}
