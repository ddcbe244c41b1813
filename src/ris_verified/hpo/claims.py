"""Whose trial is whose: what counts towards the size of a study, and what the dead left behind."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import optuna
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from ris_verified.hpo.workers import is_gone

logger = logging.getLogger(__name__)
# From the draw of a trial to its worker's name it takes one write. One that is taken for lost too early is drawn again.
NAMELESS = 5.0


def claimed(study: optuna.Study, before: int | None = None) -> int:
    """Return how many trials are done or under way, or how many of those numbered below `before`.

    Abandoned trials do not count.
    """
    trials = study.get_trials(deepcopy=False)[:before]
    return sum(_counts(trial) for trial in trials)


def _counts(trial: FrozenTrial) -> bool:
    if trial.state == TrialState.FAIL:
        return "error" in trial.user_attrs
    # One that was drawn and has no name yet as well: who draws next would not see it and go on beside it.
    return trial.state != TrialState.WAITING


def under_way(study: optuna.Study) -> int:
    """Return how many trials no worker has ended."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


class Reaper:
    """Fails the running trials of workers that are gone.

    Args:
        study: of any storage.
        folder: where the workers hold their locks; None on a server, where heartbeats tell.
    """

    def __init__(self, study: optuna.Study, folder: Path | None) -> None:
        self._study, self._folder = study, folder
        # Clocks of machines differ: how long a trial has had no name is what this worker has seen.
        self._nameless: dict[int, float] = {}

    def reap(self) -> int:
        """Fail them, and return how many."""
        if self._folder is None:
            fail_stale_trials(self._study)
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        gone = [trial for trial in running if self._left(trial)]
        for trial in gone:
            logger.warning("trial %d was left by a worker that is gone; it will be replaced", trial.number)
            self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        return len(gone)

    def _left(self, trial: FrozenTrial) -> bool:
        if (worker := trial.user_attrs.get("worker")) is not None:
            return self._folder is not None and is_gone(self._folder, worker)
        now = time.monotonic()
        return now - self._nameless.setdefault(trial.number, now) > NAMELESS
