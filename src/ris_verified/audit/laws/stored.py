"""Scenes of a data folder for the rules to look at: some of every shard of every split, or the drawn ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ris_verified.audit.context import Context

if TYPE_CHECKING:
    from torch import Tensor

    from ris_verified.data.assemble import Truth
    from ris_verified.data.batch import Batch
    from ris_verified.data.dataset import SceneDataset

CHECKED = 256  # of a split
AT_ONCE = 64  # 144 × 144 covariances of so many take 20 MB in double precision
GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Part:
    """Scenes to look at.

    Args:
        batch: as the pipeline unpacks them.
        truth: of the same scenes.
    """

    batch: Batch
    truth: Truth


def datasets(context: Context) -> dict[str, SceneDataset]:
    """Return the data set of every split of the folder; none where scenes are drawn."""
    from ris_verified.data.dataset import SceneDataset
    from ris_verified.data.manifest import SPLITS

    return {} if context.data is None else {split: SceneDataset(context.data, split) for split in SPLITS}


def spread(sizes: Sequence[int], count: int, seed: int = 0) -> Tensor:
    """Return indices of about `count` scenes, the same number of every shard and at least one.

    Within a shard they are evenly spaced and begin elsewhere than in the shard before: over the shards, and over
    seeds, they come to every place.

    Args:
        sizes: scenes of each shard.
        count: how many scenes in all.
        seed: of the audit.
    """
    import torch

    each, first, found = max(1, count // len(sizes)), 0, []
    for shard, size in enumerate(sizes):
        some = min(each, size)
        phase = (shard + seed + 1) * GOLDEN % 1
        found += [first + int((place + phase) * size / some) for place in range(some)]
        first += size
    return torch.tensor(found)


def chosen(context: Context, dataset: SceneDataset) -> Tensor:
    """Return the indices of the scenes of a data set that an audit looks at."""
    return spread([shard.scenes for shard in dataset.shards], CHECKED, context.seed)


def parts(context: Context) -> Iterator[tuple[str, Iterator[Part]]]:
    """Yield what messages call each split, and its scenes in parts of bounded size; or the eight drawn ones."""
    from ris_verified.data.dataset import scenes_to_truth

    if context.data is None:
        yield "", iter([Part(context.batch, scenes_to_truth(context.scenes, context.config))])
    for split, dataset in datasets(context).items():
        yield f" of {split}", _read(context, dataset, chosen(context, dataset))


def _read(context: Context, dataset: SceneDataset, index: Tensor) -> Iterator[Part]:
    for some in index.split(AT_ONCE):
        yield Part(context.pipeline.unpack(dataset.batch(some), "cpu"), dataset.truth(some))


def places(context: Context) -> Iterator[tuple[str, Any]]:
    """Yield where messages say that positions are from, and these: `n x 3` float64, as drawn and as stored."""
    import numpy as np

    drawn = [np.stack([s.azimuth, s.elevation, s.range], -1) for s in context.many]
    yield "draw_scene", np.concatenate(drawn)
    for split, dataset in datasets(context).items():
        stored = dataset.stored(chosen(context, dataset))["sources"][..., :3].flatten(0, 1).numpy()
        yield split, stored[np.isfinite(stored).all(-1)]
