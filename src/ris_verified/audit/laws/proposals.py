"""What is stored with scenes for the network is what inference would make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ris_verified.audit.context import Context
from ris_verified.audit.laws.model_laws import AGREE
from ris_verified.audit.rule import Measurement, at_most

if TYPE_CHECKING:
    from ris_verified.data.batch import Batch

SCENES = 32


def stored_proposals(context: Context, batch: Batch) -> Sequence[Measurement]:
    """Compare the proposals of some scenes with those made now; nothing where none are stored.

    Another machine rounds otherwise, and where two places are as likely it may choose the other one: the median tells.
    """
    import torch

    from ris_verified.data.batch import ProposedBatch
    from ris_verified.estimate.proposals import propose
    from ris_verified.shapes import from_ri

    if not isinstance(batch, ProposedBatch):
        return []
    y, H_full, C = (from_ri(value[:SCENES]) for value in (batch.y, batch.H_full, batch.C))
    with torch.no_grad():
        made = propose(y, H_full, C, context.config).packed()
    gap = (batch.proposals[:SCENES] - made).abs() / made.abs().amax((0, 1))
    bound = 1e3 * torch.finfo(made.dtype).eps
    worst = float(gap.amax((1, 2)).median())
    return [at_most(worst, bound, f"stored proposals against those made now, {len(made)} scenes", where="proposals")]


def searched_alike(context: Context) -> list[Measurement]:
    """Compare R_pred with stored proposals and without, for a network that takes them (RV0802)."""
    import torch

    from ris_verified.data.dataset import with_proposals
    from ris_verified.model.call import outputs_of

    p, cfg = context.pipeline, context.config
    with torch.no_grad():
        stored = outputs_of(context.model, with_proposals(context.batch, cfg))
    searched = context.outputs
    given, made = (p.predicted_covariance(o.cov_fact_angle, o.cov_fact_range, cfg) for o in (stored, searched))
    apart = (given - made).flatten(1).norm(dim=1) / made.flatten(1).norm(dim=1)
    message = "R_pred with stored proposals against without, median over scenes"
    return [at_most(float(apart.median()), AGREE, message, where="build_model")]
