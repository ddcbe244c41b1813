"""Whoever looks on while a run trains: the progress bar and TensorBoard; neither reads the device at a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ris_verified.data.dataset import SceneDataset
from ris_verified.pipeline import Pipeline
from ris_verified.train.board import Board
from ris_verified.train.pace import Pace
from ris_verified.train.portrait import portrait
from ris_verified.train.room import fitting
from ris_verified.train.state import StepReport, TrainState

Progress = Callable[[int, int, str], None]
# Scenes of the figures that are drawn every epoch.
SHOWN = 128


class Watch:
    """Passes steps, records and epochs on to those who asked for them.

    Args:
        pipeline: of the run.
        validation: its first scenes are shown, every epoch the same.
        scenes: in a whole step.
        progress: called with step, total steps and a note; may be None.
        board: TensorBoard events; may be None.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        validation: SceneDataset,
        scenes: int,
        progress: Progress | None,
        board: Board | None,
    ) -> None:
        self._pipeline, self._validation = pipeline, validation
        self._progress, self._board = progress, board
        self._pace = Pace(pipeline.config.train.epochs, scenes)

    def hear(self, records: list[dict[str, Any]]) -> None:
        """Take records that the log has just written."""
        self._pace.hear(records)
        if self._board:
            self._board.hear(records)

    def begin(self, epoch: int) -> None:
        """Begin an epoch, 0-based."""
        self._pace.epoch(epoch)

    def step(self, state: TrainState, report: StepReport) -> None:
        """Take one step; its tensors are left where they are."""
        if self._progress:
            note = self._pace.note(report.learning_rates["backbone"], state.skipped)
            self._progress(state.step, state.total_steps, note)

    def validated(self, state: TrainState, device: torch.device, size: int) -> None:
        """Draw what the weights that were just validated make of the same scenes as ever, `size` of them at once."""
        if not self._board:
            return
        most = min(SHOWN, self._pipeline.config.data.validation_scenes, len(self._validation))
        batch = self._pipeline.unpack(self._validation.batch(torch.arange(most)), device)
        seen, _ = fitting(lambda part: portrait(self._pipeline, state.best, batch, part), size, "drawing figures")
        self._board.figures(state.step, seen)

    def close(self) -> None:
        """End the watch; every event is on disk."""
        if self._board:
            self._board.close()
