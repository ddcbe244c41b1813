"""What is stored with scenes for the network is what inference would make of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ris_verified.audit.context import Context
from ris_verified.audit.laws.model_laws import AGREE
from ris_verified.audit.laws.stored import datasets, spread
from ris_verified.audit.rule import Measurement, at_most

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.data.dataset import SceneDataset

SCENES = 16  # of a split with few shards, and of a shard that is looked at again
SHARDS = 128
LOOKED_AT_AGAIN = 4


def stored_proposals(context: Context) -> Iterator[Measurement]:
    """Compare the proposals of some scenes of every split with those made now; nothing where none are stored.

    Another machine rounds otherwise, and where two places are as likely it may choose the other one: the median tells.
    One scene of each of many shards is enough to find those whose scenes all differ: the shards of the scenes that
    differ most are looked at again.
    """
    import torch

    bound = 1e3 * torch.finfo(torch.float32).eps
    for split, dataset in datasets(context).items():
        sizes = [shard.scenes for shard in dataset.shards]
        index = spread(sizes, SCENES, context.seed)
        index = index[spread([len(index)], SHARDS)]
        gaps = _gaps(context, dataset, index)
        if gaps is None:
            continue
        text = f"stored proposals of {split} against those made now"
        yield at_most(float(gaps.median()), bound, f"{text}, {len(gaps)} scenes", where="proposals")
        ends = torch.tensor(sizes).cumsum(0)
        doubtful = torch.searchsorted(ends, index[gaps.argsort(descending=True)], right=True)
        far = doubtful[: int((~(gaps <= bound)).sum())].tolist()
        for shard in list(dict.fromkeys(far))[:LOOKED_AT_AGAIN]:
            again = int(ends[shard]) - sizes[shard] + spread([sizes[shard]], SCENES, context.seed)
            found = _gaps(context, dataset, again)
            median = float("nan") if found is None else float(found.median())
            yield at_most(median, bound, f"{text}, {len(again)} scenes", where=dataset.shards[shard].file)


def _gaps(context: Context, dataset: SceneDataset, index: Tensor) -> Tensor | None:
    """Return how far each scene's proposals are from those made now, in figures' scales; None where none are stored."""
    import torch

    from ris_verified.data.batch import ProposedBatch
    from ris_verified.estimate.proposals import propose
    from ris_verified.shapes import from_ri

    batch = dataset.batch(index)
    if not isinstance(batch, ProposedBatch):
        return None
    y, H_full, C = (from_ri(value) for value in (batch.y, batch.H_full, batch.C))
    with torch.no_grad():
        made = propose(y, H_full, C, context.config).packed()
    # A figure that is zero in all of a few scenes must be zero.
    scale = made.abs().amax((0, 1)).clamp_min(torch.finfo(made.dtype).tiny)
    return ((batch.proposals - made).abs() / scale).amax((1, 2))


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
