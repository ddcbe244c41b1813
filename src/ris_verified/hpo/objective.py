"""The objective: train a trial, score every epoch by localisation, keep the best."""

from __future__ import annotations

import dataclasses
import gc
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ris_verified.data.batch import Batch
from ris_verified.data.dataset import SceneDataset
from ris_verified.pipeline import Pipeline
from ris_verified.train.ranks import default_device

# 1-based epoch and its score; raises where the trial is to be pruned.
Report = Callable[[int, float], None]


def objective(
    pipeline: Pipeline, data: Path, out: Path, values: dict[str, Any], number: int, report: Report | None = None
) -> Any:
    """Train with the sampled values and return the best epoch's localisation score on the validation split.

    The trial ends early after `hpo.patience` epochs without a better score, or with one that is not finite.

    Args:
        pipeline: its `trial_config` makes the trial's configuration.
        data: an existing data folder; a trial uses its first scenes.
        out: receives `trial-0000` and so on; configuration and log stay, weights do not.
        values: sampled value by configuration field.
        number: of the trial.
        report: called after every epoch.

    Returns:
        The pipeline's score, lower is better; with `hpo.timed` also the seconds that it took a scene.
    """
    cfg = pipeline.trial_config(pipeline.config, values)
    trial = dataclasses.replace(pipeline, config=cfg)
    scores, seconds = list[float](), list[float]()

    def judge(model: nn.Module, epoch: int) -> bool:
        began = time.perf_counter()
        scenes, batches = _validation(trial, data)
        scores.append(trial.score(trial, model, batches))
        seconds.append((time.perf_counter() - began) / scenes)
        if not math.isfinite(scores[-1]):
            return True
        if report:
            report(epoch, scores[-1])
        return 0 < cfg.hpo.patience <= epoch - 1 - scores.index(min(scores))

    folder = out / f"trial-{number:04d}"
    try:
        trial.train(trial, data, folder, curves=False, judge=judge)
    finally:
        (folder / "weights.safetensors").unlink(missing_ok=True)
        gc.collect()
        torch.cuda.empty_cache()
    score = min(scores) if math.isfinite(scores[-1]) else scores[-1]
    return (score, min(seconds)) if cfg.hpo.timed else score


def _validation(pipeline: Pipeline, data: Path) -> tuple[int, Iterator[Batch]]:
    """Return the number of scenes that a trial is judged on, and these."""
    device = default_device()
    dataset = SceneDataset(data, "validation")
    scenes = min(pipeline.config.data.validation_scenes, len(dataset))
    return scenes, (pipeline.unpack(dataset.batch(index), device) for index in torch.arange(scenes).split(64))
