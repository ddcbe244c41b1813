"""How a run ends that cannot go on: one error that says where and what to do, and a log of what led to it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import torch

from ris_verified.data.batch import Batch
from ris_verified.errors import DivergedError, NonFiniteError, RisVerifiedError, TrainingError
from ris_verified.train.checkpoint import Standing
from ris_verified.train.log import TrainingLog
from ris_verified.train.room import no_room, out_of_memory
from ris_verified.train.state import TrainState

logger = logging.getLogger(__name__)
MOST = 5  # indices of scenes that the one line of an error holds


class Shown:
    """Batches as they pass, and where they stand among the scenes of a split.

    Args:
        split: whose scenes they are.
        where: in the run.
    """

    def __init__(self, split: str, where: str) -> None:
        self._split, self._where = split, where
        self._first = 0
        self._batch: Batch | None = None

    def each(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches, from the first scene on."""
        self._first, self._batch = 0, None
        for batch in batches:
            self._first += 0 if self._batch is None else len(self._batch)
            self._batch = batch
            yield batch

    def diverged(self, error: RisVerifiedError) -> TrainingError:
        """Return the error of figures that are not finite: of such measurements, or else of the weights."""
        bad = [] if self._batch is None else _spoilt(self._batch)
        if bad:
            return TrainingError(
                f"measurements that are not finite, in scenes {', '.join(str(self._first + i) for i in bad)}",
                where=f"{self._where}, split {self._split}",
                expected="finite y, H_full and C",
                remedy="look at these scenes, or draw the data again",
            )
        return TrainingError(
            f"the weights give figures that are not finite: {error.where}: {error.what}",
            where=f"{self._where}, split {self._split}",
            expected="finite covariances",
            remedy="lower train.learning_rate; `log.jsonl` has the steps that led to it",
        )

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Turn divergence into the error that says where.

        Raises:
            TrainingError: a figure is not finite.
        """
        try:
            yield
        except (DivergedError, NonFiniteError) as error:
            raise self.diverged(error) from error


def _spoilt(batch: Batch) -> list[int]:
    good = torch.stack([torch.isfinite(value).flatten(1).all(1) for value in (batch.y, batch.H_full, batch.C)]).all(0)
    return [int(i) for i in torch.nonzero(~good)[:MOST]]


@contextlib.contextmanager
def recorded(log: TrainingLog, where: str) -> Iterator[None]:
    """Write what the log holds back where an error ends the run: what led to it is what its user must read.

    Args:
        log: of the run.
        where: in the run.

    Raises:
        TrainingError: memory ran out outside a step.
    """
    try:
        yield
    except BaseException as error:
        # A full disk or a broken accelerator may be what ended the run: that error counts, not a second one.
        with contextlib.suppress(OSError, RuntimeError):
            log.flush()
        if out_of_memory(error):
            raise no_room(str(error), where, "the scenes of a step") from error
        raise


def require_trained(state: TrainState, at: Standing) -> None:
    """Raise where a finished run has nothing to show, and tell how many of its steps were skipped.

    Raises:
        TrainingError: every step was skipped, or no validation gave a finite figure.
    """
    remedy = "check the data, or lower train.learning_rate; `log.jsonl` has every step"
    if state.skipped == state.step:
        raise TrainingError(
            f"no step changed the weights: all {state.step} were skipped for numbers that are not finite",
            where="end of the run",
            expected="at least one finite loss and gradient",
            remedy=remedy,
        )
    if state.ranks.leads and not at.best_epoch:
        raise TrainingError(
            "no epoch was validated with a finite capture", where="end of the run", expected="one", remedy=remedy
        )
    if state.skipped and state.ranks.leads:
        share = 100 * state.skipped / state.step
        logger.warning(
            "%d of %d steps (%.2g %%) were skipped for numbers that are not finite", state.skipped, state.step, share
        )
