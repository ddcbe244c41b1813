"""The training run: epochs over stored scenes, validation, weights, log and curves."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ris_verified.data.batch import Batch
from ris_verified.data.dataset import BatchLoader, SceneDataset
from ris_verified.pipeline import Pipeline
from ris_verified.train.board import Board
from ris_verified.train.curves import draw_curves
from ris_verified.train.log import TrainingLog
from ris_verified.train.printout import epoch_line, first_epoch
from ris_verified.train.schedule import curriculum_order
from ris_verified.train.state import TrainState
from ris_verified.train.summary import write_summary
from ris_verified.train.watch import Progress, Watch
from ris_verified.train.weights import save_model

logger = logging.getLogger(__name__)
VALIDATION_BATCH = 128


@dataclass(frozen=True)
class TrainResult:
    """What a run leaves.

    Args:
        model: the best validated weights, in evaluation mode.
        weights: their file.
        history: one record an epoch: epoch, step, train loss, validation figures, rate, skipped steps so far.
        best_epoch: 1-based epoch of the weights, chosen by validated subspace capture.
        skipped: steps skipped for non-finite numbers.
        scenes_per_second: training scenes over time in steps, validation excluded.
    """

    model: nn.Module
    weights: Path
    history: list[dict[str, Any]]
    best_epoch: int
    skipped: int
    scenes_per_second: float


def default_device() -> torch.device:
    """Return the accelerator where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _epoch_order(dataset: SceneDataset, scenes: int, pipeline: Pipeline, epoch: int) -> Tensor:
    cfg = pipeline.config
    generator = torch.Generator().manual_seed(cfg.seed * 1_000_003 + epoch)
    order = torch.randperm(scenes, generator=generator)
    return curriculum_order(order, dataset.source_counts(), epoch, cfg.train)


class _Run:
    def __init__(self, pipeline: Pipeline, data: Path, out: Path, progress: Progress | None, tensorboard: bool) -> None:
        cfg = pipeline.config
        self.pipeline, self.out = pipeline, out
        self.device = default_device()
        self.training = SceneDataset(data, "train")
        self.validation = SceneDataset(data, "validation")
        # A trial of a study uses the first scenes of a larger folder.
        self.scenes = min(cfg.data.train_scenes, len(self.training))
        self.batch = min(cfg.train.batch_size * cfg.train.accumulation, self.scenes)
        self.steps = -(-self.scenes // self.batch)
        self.state = TrainState.create(pipeline, total_steps=self.steps * cfg.train.epochs, device=self.device)
        out.mkdir(parents=True, exist_ok=True)
        board = Board(out) if tensorboard else None
        self.watch = Watch(pipeline, self.validation, self.batch, progress, board)
        self.log = TrainingLog(out / "log.jsonl", self.watch.hear)
        self.seconds = 0.0

    def _batches(self, dataset: SceneDataset, order: Tensor, size: int) -> Iterator[Batch]:
        for batch in BatchLoader(dataset, size, order=order):
            yield self.pipeline.unpack(batch, self.device)

    def epoch(self, epoch: int) -> dict[str, Any]:
        state = self.state
        state.model.train()
        self.watch.begin(epoch)
        order = _epoch_order(self.training, self.scenes, self.pipeline, epoch)
        total, began = torch.zeros((), device=self.device), time.perf_counter()
        counted, rate = 0, 0.0
        for batch in self._batches(self.training, order, self.batch):
            report = self.pipeline.train_step(state, batch, self.pipeline)
            self.log.step(state.step, report)
            rate = report.learning_rates["backbone"]
            if not report.skipped:
                total, counted = total + report.loss, counted + 1
            if state.step == 1:
                self._print_first(batch)
            self.watch.step(state, report)
        self.seconds += time.perf_counter() - began
        return {
            "epoch": epoch + 1,
            "step": state.step,
            "train": float(total) / counted if counted else float("nan"),
            "rate": rate,
            "skipped": state.skipped,
        }

    def _print_first(self, batch: Batch) -> None:
        with torch.no_grad():
            _, blended = self.pipeline.forward(self.state.model, batch)
        for line in first_epoch(self.state, batch, blended, self.pipeline.config).lines():
            logger.info(line)

    def validated(self) -> dict[str, float]:
        order = torch.arange(min(self.pipeline.config.data.validation_scenes, len(self.validation)))
        batches = self._batches(self.validation, order, VALIDATION_BATCH)
        return self.pipeline.validate(self.pipeline, self.state.best, batches)


def train(
    pipeline: Pipeline,
    data: Path,
    out: Path,
    *,
    progress: Progress | None = None,
    curves: bool = True,
    tensorboard: bool = False,
) -> TrainResult:
    """Train on stored scenes and keep the weights that validated best.

    After every epoch the averaged weights (SWA once begun, else EMA, else live) are validated, and
    saved when their subspace capture is the best so far: what is validated is what is saved.

    Args:
        pipeline: the stages and the configuration.
        data: folder written by `generate`.
        out: receives `weights.safetensors`, `log.jsonl`, `curves.png`, `summary.html` and `config.toml`.
        progress: called with step, total steps and a note.
        curves: whether to draw `curves.png` and to write `summary.html`.
        tensorboard: whether to write TensorBoard events into `out/tensorboard`.

    Returns:
        A `TrainResult`.

    Raises:
        DataError: the data folder is missing or damaged.
        InputError: TensorBoard was asked for and is not installed.
        TrainingError: too many non-finite steps in a row.
    """
    run = _Run(pipeline, data, out, progress, tensorboard)
    cfg = pipeline.config
    (out / "config.toml").write_text(cfg.to_toml(), encoding="utf-8")
    weights, history, best, best_epoch = out / "weights.safetensors", [], -1.0, 0
    kept: dict[str, Tensor] = {}
    for epoch in range(cfg.train.epochs):
        record = run.epoch(epoch)
        record["validation"] = run.validated()
        history.append(record)
        run.log.epoch(record)
        logger.info(
            epoch_line(epoch + 1, cfg.train.epochs, record["train"], record["validation"]["loss"], record["rate"])
        )
        if record["validation"]["capture"] > best:
            best, best_epoch = record["validation"]["capture"], epoch + 1
            save_model(run.state.best, cfg, weights)
            kept = {name: value.clone() for name, value in run.state.best.state_dict().items()}
        run.watch.validated(run.state, run.device)
    run.watch.close()
    model = pipeline.build_model(cfg).to(run.device)
    model.load_state_dict(kept)
    rate = run.scenes * cfg.train.epochs / run.seconds
    result = TrainResult(model.eval(), weights, history, best_epoch, run.state.skipped, rate)
    if curves:
        draw_curves(run.log.path, out / "curves.png")
        write_summary(result, cfg, data, out)
    return result
