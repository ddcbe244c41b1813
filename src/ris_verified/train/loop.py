"""The training run: epochs over stored scenes, validation, weights, log and curves."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ris_verified.data.batch import Batch
from ris_verified.data.dataset import BatchLoader, SceneDataset
from ris_verified.files import atomic_write
from ris_verified.pipeline import Pipeline
from ris_verified.train.begin import LOG, WEIGHTS, begin
from ris_verified.train.board import Board
from ris_verified.train.curves import draw_curves
from ris_verified.train.failure import Shown, recorded, require_trained
from ris_verified.train.identity import described
from ris_verified.train.lock import occupied
from ris_verified.train.log import TrainingLog
from ris_verified.train.printout import FirstEpoch, epoch_line, first_epoch, tell_sizes
from ris_verified.train.ranks import Ranks, default_device, joined
from ris_verified.train.ready import checkpoints_of, epoch_of, training_data
from ris_verified.train.result import TrainResult, merit
from ris_verified.train.room import fitting
from ris_verified.train.schedule import epoch_order
from ris_verified.train.state import StepReport, TrainState
from ris_verified.train.step import SkippedError, micro_batch
from ris_verified.train.stop import Stop, asked, stopped
from ris_verified.train.summary import write_summary
from ris_verified.train.watch import Progress, Watch
from ris_verified.train.weights import load_model, save_model

logger = logging.getLogger(__name__)
# So few are validated at once whatever a step's parts are: each holds a handful of covariances, and no gradient.
FEW = 16
VALIDATION_BATCH = 128
# Validated weights and 1-based epoch → whether to stop.
Judge = Callable[[nn.Module, int], bool]


class _Run:
    def __init__(
        self,
        pipeline: Pipeline,
        data: Path,
        out: Path,
        ranks: Ranks,
        *,
        progress: Progress | None,
        tensorboard: bool,
        fresh: bool,
        stop: Stop | None,
    ) -> None:
        cfg = pipeline.config
        self.pipeline, self.out, self.ranks = pipeline, out, ranks
        self.device = default_device()
        self.training, self.validation = training_data(pipeline, data)
        self.scenes, self.batch = epoch_of(pipeline, self.training)
        if ranks.leads:
            tell_sizes(cfg, data, self.scenes, self.batch)
        self.steps = -(-self.scenes // self.batch)
        # Scenes of a batch without gradients for which there is memory, as far as is known.
        self.fits = VALIDATION_BATCH
        self.stop = stop
        steps = self.steps * cfg.train.epochs
        self.state = TrainState.create(pipeline, total_steps=steps, device=self.device, ranks=ranks)
        self.checkpoints = checkpoints_of(pipeline, data, out)
        # A run without checkpoints must not overwrite one that has some.
        self.at = begin(cfg, out, self.checkpoints, self.state, fresh=fresh)
        board = Board(out) if tensorboard and ranks.leads else None
        self.watch = Watch(pipeline, self.validation, self.batch, progress, board)
        log = out / LOG if ranks.leads else None
        self.log = TrainingLog(log, self.watch.hear, self.state.step, len(self.at.history))

    def _batches(self, dataset: SceneDataset, order: Tensor, size: int, skip: int = 0) -> Iterator[Batch]:
        for batch in BatchLoader(dataset, size, order=order, skip=skip, pin=self.device.type == "cuda"):
            yield self.pipeline.unpack(batch, self.device)

    def _rest(self, epoch: int) -> Iterator[Batch]:
        order = epoch_order(self.training.source_counts(), self.scenes, self.pipeline.config, epoch)
        share, done = self.ranks.share(order, self.batch), self.state.step - epoch * self.steps
        return self._batches(self.training, share, self.batch // self.ranks.count, done)

    def epoch(self, epoch: int) -> dict[str, Any]:
        state, every = self.state, self.pipeline.config.train.checkpoint_steps
        if number := asked(self.stop, self.ranks):
            # Since the last step, whose epoch has its checkpoint.
            raise stopped(state, number, kept=every > 0)
        state.model.train()
        self.watch.begin(epoch)
        at, began = self.at, time.perf_counter()
        total = torch.tensor(at.total, dtype=torch.float64, device=self.device)
        for batch in self._rest(epoch):
            report = self._step(batch)
            at.rate = report.learning_rates["backbone"]
            if not report.skipped:
                total, at.counted = total + report.loss, at.counted + 1
            if not report.skipped and state.step - state.skipped == 1 and self.ranks.leads:
                self._print(*self._first(batch).lines())
            self.watch.step(state, report)
            number = asked(self.stop, self.ranks)
            if every and (number or state.step % every == 0):
                now = time.perf_counter()
                at.total, at.seconds, began = float(total), at.seconds + now - began, now
                self._keep()
            if number:
                raise stopped(state, number, kept=every > 0)
        at.seconds += time.perf_counter() - began
        mean = float(total) / at.counted if at.counted else float("nan")
        at.total, at.counted = 0.0, 0
        return {"epoch": epoch + 1, "step": state.step, "train": mean, "rate": at.rate, "skipped": state.skipped}

    def _step(self, batch: Batch) -> StepReport:
        try:
            report = self.pipeline.train_step(self.state, batch, self.pipeline)
        except SkippedError as error:
            self.log.step(self.state.step, error.report)
            raise
        self.log.step(self.state.step, report)
        return report

    def _keep(self) -> None:
        # First the log: what a checkpoint counts as done must be in it.
        self.log.keep()
        self.checkpoints.save(self.state, self.at)

    def close_epoch(self, record: dict[str, Any], weights: Path) -> None:
        """Validate, save the weights where they are the best, then the checkpoint that counts the epoch."""
        self.at.history.append(record)
        if self.ranks.leads:
            self._note(record, weights)
        if self.pipeline.config.train.checkpoint_steps:
            self._keep()

    def _note(self, record: dict[str, Any], weights: Path) -> None:
        cfg, at = self.pipeline.config, self.at
        record["validation"] = self._validated()
        self.log.epoch(record)
        self._print(self._line(record))
        # Random weights are not the best of anything.
        if (reached := merit(record["validation"])) > at.best and self.state.skipped < self.state.step:
            at.best, at.best_epoch = reached, record["epoch"]
            save_model(self.state.best, cfg, weights)
        self.watch.validated(self.state, self.device, self.fits)

    def _first(self, batch: Batch) -> FirstEpoch:
        size = micro_batch(self.state, self.pipeline.config.train, len(batch))
        with Shown("train", f"step {self.state.step}").watched():
            return fitting(lambda most: first_epoch(self.state, batch, self.pipeline, most), size, "measuring")[0]

    def _line(self, record: dict[str, Any]) -> str:
        validated, epochs = record["validation"]["loss"], self.pipeline.config.train.epochs
        return epoch_line(record["epoch"], epochs, record["train"], validated, record["rate"])

    def _print(self, *lines: str) -> None:
        for line in lines:
            logger.info(line)

    def _validated(self) -> dict[str, float]:
        order = torch.arange(min(self.pipeline.config.data.validation_scenes, len(self.validation)))
        size = max(FEW, micro_batch(self.state, self.pipeline.config.train, self.batch // self.ranks.count))
        shown = Shown("validation", f"end of epoch {len(self.at.history)}")

        def validate(most: int) -> dict[str, float]:
            batches = shown.each(self._batches(self.validation, order, most))
            return self.pipeline.validate(self.pipeline, self.state.best, batches)

        with shown.watched():
            figures, self.fits = fitting(validate, min(self.fits, size, len(order)), "validating")
        return figures


def train(
    pipeline: Pipeline,
    data: Path,
    out: Path,
    *,
    progress: Progress | None = None,
    curves: bool = True,
    tensorboard: bool = False,
    fresh: bool = False,
    judge: Judge | None = None,
    stop: Stop | None = None,
) -> TrainResult:
    """Train on stored scenes and keep the weights that validated best.

    A run that was interrupted goes on from its last checkpoint, every `train.checkpoint_steps`, and ends with
    the same bits as if it had not been, given the same number of threads and processes. Under `torchrun` every
    process takes its share of each batch; the first one alone validates and writes.

    After every epoch the averaged weights (SWA once begun, else EMA, else live) are validated, and
    saved when the mean of their subspace capture and order accuracy is the best so far: what is validated is what is
    saved.

    Args:
        pipeline: the stages and the configuration.
        data: folder written by `generate`.
        out: receives `weights.safetensors`, `log.jsonl`, `curves.png`, `summary.html` and `config.toml`.
        progress: called with step, total steps and a note.
        curves: whether to draw `curves.png` and to write `summary.html`.
        tensorboard: whether to write TensorBoard events into `out/tensorboard`.
        fresh: whether to start over where `out/checkpoints` would let the run go on.
        judge: called after every epoch with the validated weights and its number; True ends the run. One process only.
        stop: asked after every step; the number of a signal, as of `stop_requests`, ends the run with a checkpoint.

    Returns:
        A `TrainResult`.

    Raises:
        DataError: the data folder is missing, damaged or of another array or field of view, or what `out` holds is of
            another run or not whole.
        ConfigError: the batch cannot be split over the processes.
        InputError: another run is under way in `out`, or TensorBoard was asked for and is not installed.
        StorageError: a file cannot be written; the last checkpoint is intact.
        TrainingError: too many non-finite steps in a row, none that was finite, or no memory.
        StoppedError: `stop` asked for the end.
    """
    device = default_device()
    # A process has one accelerator: it must not wake the others.
    seeded = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with seeded, joined() as ranks, occupied(out, ranks):
        torch.manual_seed(pipeline.config.seed + ranks.index)
        return _trained(
            # Held by nobody afterwards: with it the processes part.
            _Run(pipeline, data, out, ranks, progress=progress, tensorboard=tensorboard, fresh=fresh, stop=stop),
            data, curves, judge,
        )  # fmt: skip


def _trained(run: _Run, data: Path, curves: bool, judge: Judge | None) -> TrainResult:
    cfg, out, at = run.pipeline.config, run.out, run.at
    if run.ranks.leads:
        atomic_write(out / "config.toml", described(run.state, cfg))
    weights = out / WEIGHTS
    for epoch in range(len(at.history), cfg.train.epochs):
        with recorded(run.log, f"epoch {epoch + 1}"):
            run.close_epoch(run.epoch(epoch), weights)
        if judge and judge(run.state.best, epoch + 1):
            break
    run.watch.close()
    require_trained(run.state, at)
    run.ranks.wait()
    # Only the first process need see the folder.
    model = load_model(weights, run.pipeline) if run.ranks.leads else run.pipeline.build_model(cfg).eval()
    run.ranks.give_weights(model.to(run.device))
    rate = run.scenes * len(at.history) / at.seconds
    result = TrainResult(model, weights, at.history, at.best_epoch, run.state.skipped, rate)
    if curves and run.ranks.leads:
        draw_curves(out / LOG, out / "curves.png")
        write_summary(result, cfg, data, out)
    return result
