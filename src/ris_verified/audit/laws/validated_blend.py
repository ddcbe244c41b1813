"""What the loss reads in validation and in training; measured for RV0805."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from ris_verified.audit.oracle import relative
from ris_verified.audit.rule import Measurement, at_most, close, equal, mended

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.audit.context import Context

SAME_LOSS = "let `training` change no term: it says only whether R_hat must carry a gradient"


def blend_of_validation(context: Context) -> list[Measurement]:
    """Watch the loss while a train step's forward and a validation run with equal weights."""
    import torch

    small = context.small
    seen: list[Tensor | None] = []
    modes: list[float] = []

    def watched(
        outputs: Any, R_hat: Tensor, batch: Any, cfg: Any, *, R_blend: Any = None, training: bool = True
    ) -> Any:
        seen.append(None if R_blend is None else R_blend.detach().clone())
        result = small.pipeline.loss(outputs, R_hat, batch, cfg, R_blend=R_blend, training=training)
        modes.append(float(result.total.detach()))
        return result

    pipeline = dataclasses.replace(small.pipeline, loss=watched)
    pipeline.validate(pipeline, small.model, [small.batch])
    with torch.no_grad():
        outputs, blended = small.pipeline.forward(small.model, small.batch)
    with torch.enable_grad():
        R_pred = blended.R_pred.clone().requires_grad_()
        watched(outputs, R_pred, small.batch, small.config, R_blend=blended.R, training=True)
    if not seen or seen[0] is None or seen[-1] is None:
        return [equal(seen[:1], "a matrix", "R_blend given to the loss in validation", where="validate")]
    bound = 1e-6 * max(1.0, abs(modes[-1]))
    return [
        at_most(relative(seen[0], seen[-1]), 1e-6, "R_blend in validation against training", where="validate"),
        *mended([close(modes[0], modes[-1], bound, "loss in validation against training", where="loss")], SAME_LOSS),
    ]
