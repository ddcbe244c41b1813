"""A study: the loop over trials, shared by any number of workers and resumed after a kill."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from ris_verified.config import Config
from ris_verified.hpo.space import SPACES, Space, suggest
from ris_verified.hpo.storage import file_of, open_storage
from ris_verified.hpo.workers import is_gone, presence

logger = logging.getLogger(__name__)
Objective = Callable[[dict[str, Any], int], float]


def run_study(
    cfg: Config,
    objective: Objective,
    storage: str,
    verdict: dict[str, str],
    spaces: Mapping[str, Space] = SPACES,
) -> optuna.Study:
    """Load or create the study and run trials until it holds `hpo.trials` of them.

    A trial that raises, or whose score is not finite, fails and counts; one whose worker was killed
    or interrupted fails and is replaced. Several workers on one storage share the trials.

    Args:
        cfg: reads `hpo` and `seed`.
        objective: sampled values and trial number → score, lower is better.
        storage: see `open_storage`.
        verdict: of the audit, kept with the study.
        spaces: by name; `hpo.space` picks one.

    Returns:
        The study.

    Raises:
        StorageError: the storage cannot be opened.
    """
    study = _loaded(cfg, storage, verdict)
    file = file_of(storage)
    with _locks(file) as folder:
        if file is not None:
            reap(study, folder)
        with presence(folder) as worker:
            while claimed(study) < cfg.hpo.trials:
                _run_trial(study, objective, cfg, worker, spaces[cfg.hpo.space])
    return study


@contextmanager
def _locks(file: Path | None) -> Iterator[Path]:
    """Yield the folder of the workers' locks: beside the file, where the next worker finds those of the dead."""
    if file is not None:
        yield file.resolve().parent / f"{file.name}.workers"
        return
    # Workers on a server may be of other machines, whose locks cannot be seen: those are left alone.
    with TemporaryDirectory() as own:
        yield Path(own)


def _loaded(cfg: Config, storage: str, verdict: dict[str, str]) -> optuna.Study:
    # A longer run of the same study is the same study.
    digest = cfg.replaced({"hpo.trials": 1}).digest()
    study = optuna.create_study(
        storage=open_storage(storage), study_name=f"ris-verified-{cfg.hpo.space}-{digest}", load_if_exists=True
    )
    study.set_user_attr("config", cfg.to_toml())
    study.set_user_attr("config_hash", digest)
    study.set_user_attr("audit", verdict)
    return study


def claimed(study: optuna.Study) -> int:
    """Return how many trials are done or under way; abandoned ones do not count."""
    return sum(_counts(trial) for trial in study.get_trials(deepcopy=False))


def _counts(trial: FrozenTrial) -> bool:
    if trial.state == TrialState.FAIL:
        return "error" in trial.user_attrs
    return trial.state.is_finished() or (trial.state == TrialState.RUNNING and "worker" in trial.user_attrs)


def reap(study: optuna.Study, folder: Path) -> int:
    """Fail the running trials of workers that are gone, and return how many.

    Args:
        study: of any storage.
        folder: where the workers hold their locks.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    gone = [t for t in running if "worker" in t.user_attrs and is_gone(folder, t.user_attrs["worker"])]
    for trial in gone:
        logger.warning("trial %d was left by a worker that is gone; it will be replaced", trial.number)
        study.tell(trial.number, state=TrialState.FAIL)
    return len(gone)


def _run_trial(study: optuna.Study, objective: Objective, cfg: Config, worker: str, space: Space) -> None:
    trial = study.ask()
    trial.set_user_attr("worker", worker)
    # Seeded by number, a resumed study goes on with fresh draws instead of repeating its first ones.
    seed = int(np.random.SeedSequence([cfg.seed, trial.number]).generate_state(1)[0])
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    try:
        score = objective(suggest(trial, space), trial.number)
    except Exception as error:  # noqa: BLE001 - one trial that fails must not end the study
        _fail(study, trial, f"{type(error).__name__}: {error}")
        return
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    if math.isfinite(score):
        study.tell(trial, score)
        logger.info("trial %d: %.4f m", trial.number, score)
    else:
        _fail(study, trial, f"score {score}")


def _fail(study: optuna.Study, trial: optuna.Trial, error: str) -> None:
    logger.warning("trial %d failed: %s", trial.number, error)
    trial.set_user_attr("error", error)
    study.tell(trial, state=TrialState.FAIL)


def best_config(study: optuna.Study, cfg: Config) -> Config:
    """Return the configuration with the best trial's values, for a whole run.

    Args:
        study: with at least one complete trial.
        cfg: that the study tuned.
    """
    return cfg.replaced(study.best_params)
