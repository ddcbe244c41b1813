"""Whether a training run can begin or go on: asked before an audit that takes its time, and by the run itself."""

from __future__ import annotations

from pathlib import Path

import torch

from ris_verified.data.dataset import SceneDataset
from ris_verified.data.manifest import Manifest
from ris_verified.pipeline import Pipeline
from ris_verified.train.begin import found
from ris_verified.train.checkpoint import Checkpoints
from ris_verified.train.identity import name_of
from ris_verified.train.lock import require_free
from ris_verified.train.ranks import Ranks, count_of_environment

# Stages that decide what a run ends with.
TRAINING = (
    "unpack", "build_model", "predicted_covariance", "sample_covariance", "blend", "loss", "parameter_groups",
    "train_step", "validate",
)  # fmt: skip


def training_data(pipeline: Pipeline, data: Path) -> tuple[SceneDataset, SceneDataset]:
    """Return the scenes to train on and those to validate on.

    Raises:
        DataError: the folder is missing, damaged or of another array or field of view.
    """
    training, validation = (SceneDataset(data, split) for split in ("train", "validation"))
    training.require_physics(pipeline.config)
    return training, validation


def epoch_of(pipeline: Pipeline, training: SceneDataset) -> tuple[int, int]:
    """Return the scenes of an epoch and of one of its steps; a trial of a study uses the first of a larger folder."""
    cfg = pipeline.config
    scenes = min(cfg.data.train_scenes, len(training))
    return scenes, min(cfg.train.batch_size * cfg.train.accumulation, scenes)


def checkpoints_of(pipeline: Pipeline, data: Path, out: Path) -> Checkpoints:
    """Return the checkpoints of a run with this pipeline and these data in a folder, whether there are any or not."""
    stages = {name: name_of(vars(pipeline)[name]) for name in TRAINING}
    return Checkpoints(out / "checkpoints", pipeline.config, Manifest.load(data).digest, stages)


def require_ready(pipeline: Pipeline, data: Path, out: Path, *, fresh: bool) -> None:
    """Raise what a run in this folder would raise at its start; nothing that lies there is changed.

    Args:
        pipeline: the stages and the configuration.
        data: folder written by `generate`.
        out: the run's folder, which may be missing.
        fresh: whether the run will start over.

    Raises:
        DataError: the data folder is missing, damaged or of another array or field of view, or what the folder holds is
            of another run or not whole.
        ConfigError: the batch cannot be split over the processes.
        InputError: another run is under way in the folder.
    """
    training, _ = training_data(pipeline, data)
    scenes, size = epoch_of(pipeline, training)
    Ranks(0, count_of_environment()).share(torch.arange(scenes), size)
    require_free(out)
    if not fresh:
        # The run itself warns.
        found(pipeline.config, out, checkpoints_of(pipeline, data, out), aloud=False)
