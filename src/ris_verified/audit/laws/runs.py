"""What a whole training run must obey, and the same run killed and begun again; measured for RV1605."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified.audit.laws.fed import scenes_of
from ris_verified.audit.rule import Measurement, at_most, close, equal, mended

if TYPE_CHECKING:
    from torch import nn

    from ris_verified.audit.context import Context
    from ris_verified.pipeline import Pipeline
    from ris_verified.train.state import TrainState

# Three epochs of three steps of two scenes, the last of one, from a folder that holds more than the configuration asks
# for.
EPOCHS, STEPS, SHOWN, STORED = 3, 3, 5, 8
# More than a batch of 128.
VALIDATED, KEPT = 130, 131
# The step that is reported as skipped, and those before which the run is killed, counted from 0: in the middle of an
# epoch, and once the stochastic average has begun.
SKIPPED, KILLED = 1, (4, 8)
# The first epoch is the best one: a run that forgets it when it is killed keeps another, as if half were looked at.
CAPTURES, ORDERS = (0.6, 0.7, 0.4), (0.8, 0.5, 0.9)
LOST = 1e3


class _Killed(BaseException):
    """Ends a run as a signal would: nothing in it may handle this."""


@dataclass
class _Run:
    """A run with watched stages.

    Args:
        pipeline: whose stages run.
        kill: the step before which the run ends.
    """

    pipeline: Pipeline
    kill: int = -1
    state: TrainState | None = None
    shown: list[list[str]] = field(default_factory=list)
    sources: list[list[int]] = field(default_factory=list)
    rates: list[dict[str, float]] = field(default_factory=list)
    decays: list[list[float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    validated: list[int] = field(default_factory=list)
    others: int = 0
    judged: list[int | str] = field(default_factory=list)
    result: Any = None

    def begin(self, folder: Path) -> None:
        """Train, or go on training, in a folder."""
        watched = dataclasses.replace(self.pipeline, train_step=self._step, validate=self._validate)
        self.result = watched.train(watched, folder / "data", folder / "out", curves=False, judge=self._judge)

    def _judge(self, model: nn.Module, epoch: int) -> bool:
        kept = self.state is not None and _same_weights(model, self.state.best)
        self.judged.append(epoch if kept else f"other weights in {epoch}")
        return False

    def _step(self, state: Any, batch: Any, pipeline: Pipeline) -> Any:
        import torch

        if state.step == self.kill:
            raise _Killed
        self.state = state
        self.shown.append(scenes_of(batch))
        self.sources.append(sorted(batch.K.tolist()))
        self.rates.append(state.rates())
        self.decays.append([group.get("weight_decay", 0.0) for group in state.optimizer.param_groups])
        report = self.pipeline.train_step(state, batch, pipeline)
        if state.step - 1 == SKIPPED:
            state.skipped += 1
            # As of a step that was not taken: its figure is no loss of the epoch.
            report = dataclasses.replace(report, loss=torch.full_like(report.loss, torch.nan), skipped=True)
        self.losses.append(float(report.loss))
        return report

    def _validate(self, pipeline: Pipeline, model: nn.Module, batches: Any) -> dict[str, float]:
        given = list(batches)
        self.validated.append(sum(len(batch) for batch in given))
        if self.state is not None:
            self.others += not _same_weights(model, self.state.best)
        figures = self.pipeline.validate(pipeline, model, given)
        epoch = min(EPOCHS, max(1, math.ceil((self.state.step if self.state else 1) / STEPS)))
        return {**figures, "capture": CAPTURES[epoch - 1], "order": ORDERS[epoch - 1]}


def _same_weights(a: nn.Module, b: nn.Module) -> bool:
    import torch

    mine, its = a.state_dict(), b.state_dict()
    return mine.keys() == its.keys() and all(torch.equal(mine[name].cpu(), its[name].cpu()) for name in mine)


def _config(context: Context) -> Any:
    small = context.small.config
    return small.replaced(
        {
            "train.epochs": EPOCHS, "train.batch_size": 1, "train.accumulation": 2, "train.checkpoint_steps": 1,
            "train.ema_decay": 0.9, "train.swa_share": 0.34, "train.curriculum_share": 0.67, "model.dropout": 0.3,
            "data.train_scenes": SHOWN, "data.validation_scenes": VALIDATED,
        }
    )  # fmt: skip


def run_obeys(context: Context) -> Iterator[Measurement]:
    """Train three epochs, then again with kills in the middle of the second one and before the last step.

    Equal seeds and operations give equal bits: a run that was killed ends as the other did, whether it goes on from
    a checkpoint or starts over.
    """
    from ris_verified.data.generate import generate

    config = _config(context)
    pipeline = dataclasses.replace(context.small.pipeline, config=config)
    with tempfile.TemporaryDirectory() as name:
        whole, again = Path(name) / "whole", Path(name) / "again"
        sizes = {"train_scenes": STORED, "validation_scenes": KEPT, "test_scenes": 1, "shard_scenes": 64, "workers": 1}
        for folder in (whole, again):
            generate(dataclasses.replace(config, data=dataclasses.replace(config.data, **sizes)), folder / "data")
        run = _Run(pipeline)
        run.begin(whole)
        if run.state is None or len(run.shown) != EPOCHS * STEPS:
            yield equal(len(run.shown), EPOCHS * STEPS, "steps of three epochs", "steps", "train")
            return
        yield from mended(
            _shown(run),
            "show each of data.train_scenes once an epoch, shuffled by seed and epoch, few sources "
            "first while a curriculum lasts",
        )
        yield from mended(_planned(run), "take optimiser and schedule from the state, over all steps of the run")
        yield from mended(
            _told(run), "validate and judge `state.best` on data.validation_scenes and average the steps taken"
        )
        yield from _resumed(run, _killed(pipeline, again))


def _killed(pipeline: Pipeline, folder: Path) -> _Run:
    for kill in (*KILLED, -1):
        run = _Run(pipeline, kill)
        with contextlib.suppress(_Killed):
            run.begin(folder)
    return run


def _shown(run: _Run) -> Iterator[Measurement]:
    epochs = [run.shown[first : first + STEPS] for first in range(0, len(run.shown), STEPS)]
    orders = [[scene for step in epoch for scene in step] for epoch in epochs]
    for number, order in enumerate(orders, 1):
        yield equal(
            len(set(order)), SHOWN, f"scenes that epoch {number} shows, of {SHOWN} asked for", "scenes", "train"
        )
    first = [count for step in run.sources[:STEPS] for count in step]
    yield equal(
        first, sorted(first), "numbers of sources, step by step, in the first epoch of a curriculum", where="train"
    )
    varied = len({tuple(order) for order in orders})
    yield equal(varied > 1, True, "the order of the scenes differs from epoch to epoch", where="train")


def _planned(run: _Run) -> Iterator[Measurement]:
    """Compare the rates used and the weight decay with those of a fresh state of the declared length."""
    import torch

    from ris_verified.train.state import TrainState

    dry = TrainState.create(run.pipeline, total_steps=EPOCHS * STEPS)
    decays = [group.get("weight_decay", 0.0) for group in dry.optimizer.param_groups]
    planned = []
    for _ in run.rates:
        planned.append(dry.rates())
        with torch.no_grad():
            dry.optimizer.step()
        dry.scheduler.step()
    apart = max(abs(a[n] - b.get(n, LOST)) / a[n] for a, b in zip(planned, run.rates, strict=True) for n in a)
    yield at_most(apart, 1e-9, "rates of a run against the schedule over all its steps, relative", where="train")
    yield equal(run.decays[-1], decays, "weight decay of the optimiser's groups", where="train")


def _told(run: _Run) -> Iterator[Measurement]:
    """Measure what a run says of itself: validated scenes and weights, the epoch's mean loss, the best epoch."""
    yield equal(run.validated, [VALIDATED] * EPOCHS, "scenes validated in each epoch", "scenes", "train")
    yield at_most(float(run.others), 0.0, "validations of other weights than `state.best`", where="train")
    yield equal(run.judged, [*range(1, EPOCHS + 1)], "epochs in which the judge is given `state.best`", where="train")
    for epoch, record in enumerate(run.result.history):
        taken = [loss for loss in run.losses[epoch * STEPS : (epoch + 1) * STEPS] if math.isfinite(loss)]
        mean = sum(taken) / len(taken)
        text = f"train loss of epoch {epoch + 1} against the mean of its steps that were taken"
        yield close(record["train"], mean, 1e-5 * max(1.0, abs(mean)), text, where="train")
    means = [(capture + order) / 2 for capture, order in zip(CAPTURES, ORDERS, strict=True)]
    text = f"epoch that is kept, of means of capture and order {', '.join(f'{mean:.2f}' for mean in means)}"
    yield equal(run.result.best_epoch, 1, text, where="train")


def _resumed(run: _Run, killed: _Run) -> Iterator[Measurement]:
    steps = " and ".join(str(kill + 1) for kill in KILLED)
    what = f"after kills before steps {steps} of {EPOCHS * STEPS}, against the run that was not killed"
    yield equal(killed.result.best_epoch, run.result.best_epoch, f"epoch that is kept {what}", where="train")
    mine, its = killed.state, run.state
    if mine is None or its is None:
        yield equal("no step", "a step", f"training {what}", where="train")
        return
    for label in ("model", "ema", "swa"):
        ours, theirs = vars(mine)[label], vars(its)[label]
        if theirs is not None:
            same = ours is not None and _same_weights(ours, theirs)
            yield equal(same, True, f"bits of `state.{label}` {what}", where="train")
    yield equal(mine.step, its.step, f"steps counted {what}", "steps", "train")
    yield equal(mine.skipped, its.skipped, f"skipped steps counted {what}", "steps", "train")
    left = EPOCHS * STEPS - KILLED[-1]
    yield equal(killed.shown[-left:], run.shown[-left:], f"scenes of the last steps {what}", where="train")
