"""The objective: train a trial and score it by localisation."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ris_verified.data.batch import Batch
from ris_verified.data.dataset import SceneDataset
from ris_verified.pipeline import Pipeline
from ris_verified.train.watch import Progress


def objective(
    pipeline: Pipeline, data: Path, out: Path, values: dict[str, Any], number: int, progress: Progress | None = None
) -> float:
    """Train with the sampled values and return the localisation score on the validation split.

    Args:
        pipeline: its `trial_config` makes the trial's configuration.
        data: an existing data folder; a trial uses its first scenes.
        out: receives `trial-0000` and so on; configuration and log stay, weights do not.
        values: sampled value by configuration field.
        number: of the trial.
        progress: of the training.

    Returns:
        The pipeline's score; lower is better.
    """
    cfg = pipeline.trial_config(pipeline.config, values)
    trial = dataclasses.replace(pipeline, config=cfg)
    result = trial.train(trial, data, out / f"trial-{number:04d}", progress=progress, curves=False)
    score = trial.score(trial, result.model.cpu(), _validation(trial, data))
    result.weights.unlink()
    del result
    gc.collect()
    torch.cuda.empty_cache()
    return score


def _validation(pipeline: Pipeline, data: Path) -> Iterator[Batch]:
    dataset = SceneDataset(data, "validation")
    scenes = min(pipeline.config.data.validation_scenes, len(dataset))
    return (pipeline.unpack(dataset.batch(index), "cpu") for index in torch.arange(scenes).split(64))
