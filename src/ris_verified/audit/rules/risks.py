"""Section R: what could still go wrong, drilled."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ris_verified.audit.context import Context
from ris_verified.audit.laws.first_count import counts_from_the_start
from ris_verified.audit.laws.nonfinite import (
    changed,
    counters,
    left_over,
    limit_ends,
    passed_on,
    poisoned,
    single_poisons,
    values,
)
from ris_verified.audit.laws.stored import datasets
from ris_verified.audit.laws.stored_damage import damage_told
from ris_verified.audit.rule import Measurement, at_least, at_most, equal, mended, rule

WARM = "begin the layers that count at what the likelihood says of K, as `model/warm_start.py` does"


@rule(
    "RV1401",
    "Missing data is one clear error",
    law="a missing folder, and a missing, truncated or changed shard raise one error with file, number of scenes and"
    " what to run",
    why="A loader that returns nothing trains for no step and saves the random start; one that compares no checksum "
    "trains on what a disk has changed.",
    how="The data set is opened on an empty and on an absent folder: one DataError that names folder and remedy. Then "
    "the last shard of each split of a small folder is missing, cut short or has a flipped bit: the data set of that "
    "split, the training and, for the bit, a trial must raise a DataError that names file, scenes and remedy. With "
    "--data every split must open.",
    remedy="compare checksums where scenes are read; raise a DataError with where, the number of scenes, and remedy",
    apart=True,
)
def missing_data(context: Context) -> Sequence[Measurement]:
    """Raises or not: no tolerance."""
    from ris_verified.data.dataset import SceneDataset
    from ris_verified.errors import DataError

    found = []
    if context.data is not None:
        sizes = {split: len(dataset) for split, dataset in datasets(context).items()}
        found += [at_least(float(size), 1.0, f"{split} scenes", "scenes", split) for split, size in sizes.items()]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "empty").mkdir()
        found += [_opens(SceneDataset, DataError, Path(folder) / name) for name in ("empty", "absent")]
    return [*found, *damage_told(context)]


def _opens(dataset: Any, expected: type[Exception], folder: Path) -> Measurement:
    try:
        dataset(folder, "train")
    except expected as error:
        text = str(error)
        held = folder.name in text and bool(vars(error).get("remedy"))
        return equal(
            held, True, f"the error on an {folder.name} folder names it and says what to run", where="SceneDataset"
        )
    return equal("opened", "DataError", f"an {folder.name} folder", where="SceneDataset")


@rule(
    "RV1403",
    "A non-finite step changes nothing and is counted",
    law="loss or gradient not finite ⟹ weights, moments and averages keep their bits; counted; a limit stops the run",
    why="Clipping, the step and the EMA each spread one NaN to every weight.",
    how="On the small model, after good steps: NaN in y, in the loss, in all gradients, NaN or infinity in the "
    "gradient of one tensor (first, middle, last), an infinite loss; every tensor of model, averages and optimiser "
    "is compared bit for bit. nonfinite_limit + 1 such steps in a row must raise, skips with a good step between "
    "must not, and the schedule goes on. A large finite gradient is no skip, an error in a stage is raised, and no "
    "stage turns NaN into a number. Bound: 0 changed.",
    remedy="test loss and gradient norm before clipping, stepping and averaging; count and stop",
    apart=True,
)
def nan_drill(context: Context) -> Sequence[Measurement]:
    """Bits are compared: no tolerance."""
    found = []
    small = context.small
    for where in ("input", "loss", "gradient"):
        state = small.state()
        small.pipeline.train_step(state, small.batch, small.pipeline)
        before, skipped = values(state), state.skipped
        bad = small.pipeline if where == "input" else poisoned(small.pipeline, where)
        y = small.batch.y * float("nan")
        batch = dataclasses.replace(small.batch, y=y) if where == "input" else small.batch
        report = small.pipeline.train_step(state, batch, bad)
        found.append(at_most(float(changed(before, values(state))), 0.0, "tensors changed by a NaN", "tensors", where))
        found.append(equal(report.skipped, True, f"a NaN {where} is reported as skipped", where=where))
        found.append(equal(state.skipped - skipped, 1, f"a NaN {where} is counted", where=where))
    found += [*limit_ends(context), *single_poisons(context), *counters(context)]
    return [*found, *left_over(context), *passed_on(context)]


@rule(
    "RV1405",
    "The loss falls on a short run",
    law="mean loss of the last quarter of 40 steps on one batch < mean of the first quarter; K starts warm",
    why="A run that does not fall in a minute will not fall in a week.",
    how="40 steps of the small model on 8 scenes with warm-up; bound: 0.99 of the start, since what the likelihood "
    "proposes is good from the start, and K may weigh little. This library's own network tells K of 128 scenes before "
    "any step: more are right than three sigma above a guess, wherever the likelihood's own count is.",
    remedy="check learning rates, sign of the loss and the blocked gradient",
    apart=True,
)
def loss_falls(context: Context) -> Sequence[Measurement]:
    """Steps on one batch without dropout have no noise but rounding."""
    small = context.small
    state = small.state(total_steps=40)
    losses = [float(small.pipeline.train_step(state, small.batch, small.pipeline).loss) for _ in range(40)]
    start, end = sum(losses[:10]) / 10, sum(losses[-10:]) / 10
    return [
        at_most(end, start, "mean loss of the last ten steps", where="train_step"),
        at_least(start - end, 0.0, "fall of the loss", where="train_step"),
        at_most(end / start if start > 0 else float("nan"), 0.99, "share of the first loss that is left"),
        *mended(counts_from_the_start(context), WARM),
    ]
