"""Which scenes a training run feeds to its steps, and in what state the network meets them."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ris_verified.audit.rule import Measurement, at_most, equal

if TYPE_CHECKING:
    from ris_verified.data.batch import Batch
    from ris_verified.pipeline import Pipeline

# What a scene is to a step: measurement, channel and the truth that belongs to them.
READ = ("y", "C", "H_full", "ptr", "K", "R_in")


class Fed:
    """Records what a pipeline's `train_step` is given.

    Args:
        pipeline: whose step is called for every recorded one.
    """

    def __init__(self, pipeline: Pipeline) -> None:
        self.scenes: list[list[str]] = []
        self.modes: list[bool] = []
        self._step = pipeline.train_step
        self.pipeline = dataclasses.replace(pipeline, train_step=self._recorded)

    def _recorded(self, state: Any, batch: Batch, pipeline: Pipeline) -> Any:
        self.scenes.append(scenes_of(batch))
        self.modes.append(state.model.training)
        return self._step(state, batch, pipeline)

    def judged(self, data: Path, steps: int) -> list[Measurement]:
        """Compare each epoch of so many steps with the stored training scenes.

        Args:
            data: the folder that was trained on.
            steps: in an epoch.

        Returns:
            Nothing where the training took steps of its own.
        """
        import torch

        from ris_verified.data.dataset import SceneDataset

        if not self.scenes:
            return []
        dataset = SceneDataset(data, "train")
        stored = sorted(scenes_of(self.pipeline.unpack(dataset.batch(torch.arange(len(dataset))), "cpu")))
        found = []
        for epoch, first in enumerate(range(0, len(self.scenes), steps), 1):
            fed = sorted(scene for step in self.scenes[first : first + steps] for scene in step)
            missed = sum(scene not in fed for scene in stored)
            said = f"stored training scenes that epoch {epoch} does not show whole, with their own truth"
            found += [
                at_most(float(missed), 0.0, said, "scenes", "train"),
                equal(len(fed), len(stored), f"scenes of epoch {epoch}", "scenes", "train"),
            ]
        idle = self.modes.count(False)
        return [*found, at_most(float(idle), 0.0, "steps with the network in evaluation mode", "steps", "train")]


def scenes_of(batch: Batch) -> list[str]:
    """Return the SHA-256 of each scene's inputs and truth; equal ones are the same scene."""
    rows = zip(*(vars(batch)[name].cpu() for name in READ), strict=True)
    return [hashlib.sha256(b"".join(part.contiguous().numpy().tobytes() for part in row)).hexdigest() for row in rows]
