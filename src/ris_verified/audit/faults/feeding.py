"""Slips in what a training run shows to its steps."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import torch

from ris_verified.audit.faults.fault import Fault, staged
from ris_verified.data.batch import Batch
from ris_verified.pipeline import Pipeline


def _feeding(change: Callable[[Any, Batch], Batch]) -> Callable[[Pipeline], Pipeline]:
    """Return a plant whose training hands its steps what a function (state, batch) makes of each batch."""

    def train(f: Any, given: Pipeline, *rest: Any, **named: Any) -> Any:
        def step(state: Any, batch: Batch, inner: Pipeline) -> Any:
            return given.train_step(state, change(state, batch), inner)

        return f(dataclasses.replace(given, train_step=step), *rest, **named)

    return staged("train", train)


def _taken(batch: Batch, index: torch.Tensor) -> Batch:
    return type(batch)(**{name: value[index] for name, value in vars(batch).items()})


def _first_only(state: Any, batch: Batch) -> Batch:
    return _taken(batch, torch.zeros(len(batch), dtype=torch.int64))


def _labels_rolled(state: Any, batch: Batch) -> Batch:
    return dataclasses.replace(batch, ptr=batch.ptr.roll(1, 0), K=batch.K.roll(1, 0), R_in=batch.R_in.roll(1, 0))


def _truth_of_another(state: Any, batch: Batch) -> Batch:
    return dataclasses.replace(batch, R_in=batch.R_in.roll(1, 0))


def _last_dropped(state: Any, batch: Batch) -> Batch:
    return _taken(batch, torch.arange(max(1, len(batch) - 1)))


def _evaluating_later(state: Any, batch: Batch) -> Batch:
    state.model.train(state.step < 2)
    return batch


def _repeated(pipeline: Pipeline) -> Pipeline:
    seen: list[Batch] = []
    count = itertools.count()

    def first_of_all(state: Any, batch: Batch) -> Batch:
        seen.append(batch)
        return seen[0] if next(count) % 2 else batch

    return _feeding(first_of_all)(pipeline)


FAULTS = (
    Fault("first_scene_of_each_batch", "RV1605", "an index is always zero", _feeding(_first_only)),
    Fault("labels_rolled_against_scenes", "RV1605", "labels are shuffled apart", _feeding(_labels_rolled)),
    Fault("covariance_of_another_scene", "RV1605", "R_true is off by one scene", _feeding(_truth_of_another)),
    Fault("last_scene_of_each_batch_lost", "RV1605", "a slice ends too early", _feeding(_last_dropped)),
    Fault("evaluation_mode_from_the_second_epoch", "RV1605", "validation leaves the mode", _feeding(_evaluating_later)),
    Fault("first_batch_again_and_again", "RV1605", "the sampler repeats", _repeated),
)
