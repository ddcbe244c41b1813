"""Whose trial is whose: what counts towards the size of a study, and what the dead left behind."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import optuna
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from ris_verified.hpo.workers import is_gone

logger = logging.getLogger(__name__)
# From the draw of a trial to its worker's name it takes one write.
NAMELESS = datetime.timedelta(minutes=10)


def claimed(study: optuna.Study, before: int | None = None) -> int:
    """Return how many trials are done or under way, or how many of those numbered below `before`.

    Abandoned trials do not count.
    """
    trials = study.get_trials(deepcopy=False)[:before]
    return sum(_counts(trial) for trial in trials)


def _counts(trial: FrozenTrial) -> bool:
    if trial.state == TrialState.FAIL:
        return "error" in trial.user_attrs
    return trial.state.is_finished() or (trial.state == TrialState.RUNNING and "worker" in trial.user_attrs)


def under_way(study: optuna.Study) -> int:
    """Return how many trials a worker has not ended."""
    return sum("worker" in t.user_attrs for t in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)))


def reap(study: optuna.Study, folder: Path | None) -> int:
    """Fail the running trials of workers that are gone, and return how many.

    Args:
        study: of any storage.
        folder: where the workers hold their locks; None on a server, where heartbeats tell.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    if folder is None:
        fail_stale_trials(study)
    gone = [t for t in running if _left(t, folder)]
    for trial in gone:
        logger.warning("trial %d was left by a worker that is gone; it will be replaced", trial.number)
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
    return len(gone)


def _left(trial: FrozenTrial, folder: Path | None) -> bool:
    if (worker := trial.user_attrs.get("worker")) is not None:
        return folder is not None and is_gone(folder, worker)
    begun = trial.datetime_start
    return begun is not None and datetime.datetime.now() - begun > NAMELESS
