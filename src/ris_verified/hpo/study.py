"""A study: the loop over trials, shared by any number of workers and resumed after a kill."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from ris_verified.config import Config
from ris_verified.errors import NoGoError, StorageError
from ris_verified.hpo.claims import Reaper, claimed, under_way
from ris_verified.hpo.server import beating
from ris_verified.hpo.space import SPACES, Space, suggest
from ris_verified.hpo.storage import file_of, open_storage
from ris_verified.hpo.workers import lock_path, presence

logger = logging.getLogger(__name__)
# Of values and trial number, and in a judged study of a report (1-based epoch, score).
Objective = Callable[..., float | tuple[float, float]]
POLL = 0.5
UNWRITABLE = (OSError, StorageInternalError, SQLAlchemyError)


def run_study(
    cfg: Config,
    objective: Objective,
    storage: str,
    verdict: dict[str, str],
    spaces: Mapping[str, Space] = SPACES,
    judged: bool = False,
    seen: Callable[[optuna.Study], None] | None = None,
) -> optuna.Study:
    """Load or create the study and work on it until it holds `hpo.trials` finished trials.

    A trial that raises, or whose score is not finite, fails and counts; one whose worker was killed
    or interrupted, or found no room to write, fails and is replaced. Several workers on one storage share the trials
    and wait for each other's last ones.

    Args:
        cfg: reads `hpo` and `seed`.
        objective: sampled values and trial number → score, lower is better; with `hpo.timed` score and seconds.
        storage: see `open_storage`.
        verdict: of the audit with the reason to go on in spite of it, `waiver`; kept with the study.
        spaces: by name; `hpo.space` picks one.
        judged: whether the objective takes a third argument, a function (epoch, score) which raises where the trial
            is pruned: successive halving over its epochs, off with `hpo.pruning` and for two objectives.
        seen: called with the study after every trial of this worker.

    Returns:
        The study.

    Raises:
        NoGoError: the verdict is NO-GO and nobody said why to go on.
        StorageError: the storage or a trial's files cannot be opened, read or written; what was written is kept.
    """
    _require_go(verdict)
    opened = open_storage(storage)
    study = _loaded(cfg, opened, storage, verdict)
    with _told(storage), _locks(file_of(storage)) as folder, presence(folder) as worker:
        reaper = Reaper(study, None if file_of(storage) is None else folder)
        while True:
            reaper.reap()
            if claimed(study) < cfg.hpo.trials:
                _run_trial(study, opened, objective, cfg, worker, spaces[cfg.hpo.space], judged)
                if seen:
                    seen(study)
            elif under_way(study):
                time.sleep(POLL)
            else:
                return study


def _require_go(verdict: dict[str, str]) -> None:
    # The command has asked before; a script that calls this on its own may not have.
    if verdict.get("verdict") == "NO-GO" and not verdict.get("waiver"):
        raise NoGoError(
            "the audit says NO-GO", where="run_study", expected="GO, or a reason to go on as the verdict's waiver",
            remedy="mend what the audit found",
        )  # fmt: skip


@contextmanager
def _told(storage: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except UNWRITABLE as error:
        raise StorageError(
            f"cannot be written or read any more: {error}",
            where=storage,
            expected="space, rights and a server that answers",
            remedy="every finished trial is kept; the same command goes on once the storage can be written",
        ) from error


@contextmanager
def _locks(file: Path | None) -> Iterator[Path]:
    """Yield the folder of the workers' locks: one of the file, where the next worker finds those of the dead."""
    if file is not None:
        yield lock_path(file, ".workers")
        return
    # Workers on a server may be of other machines, whose locks cannot be seen: heartbeats tell of those.
    with TemporaryDirectory() as own:
        yield Path(own)


def name_of(cfg: Config) -> str:
    """Return the name of a configuration's study; a longer run of the same study is the same study."""
    return f"ris-verified-{cfg.hpo.space}-{_digest(cfg)}"


def _digest(cfg: Config) -> str:
    return cfg.replaced({"hpo.trials": 1}).digest()


def _loaded(cfg: Config, opened: BaseStorage, storage: str, verdict: dict[str, str]) -> optuna.Study:
    with _told(storage):
        study = optuna.create_study(
            storage=opened,
            study_name=name_of(cfg),
            load_if_exists=True,
            pruner=_pruner(cfg),
            directions=["minimize"] * (1 + cfg.hpo.timed),
        )
        study.set_user_attr("config", cfg.to_toml())
        study.set_user_attr("config_hash", _digest(cfg))
        study.set_user_attr("audit", verdict)
    return study


def _pruner(cfg: Config) -> optuna.pruners.BasePruner:
    if not cfg.hpo.pruning:
        return optuna.pruners.NopPruner()
    # Before a quarter of the epochs, while the learning rate is near its peak, scores say little of the last ones.
    first = math.ceil(cfg.hpo.epochs_per_trial / 4)
    return optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=3)


def _run_trial(
    study: optuna.Study,
    storage: BaseStorage,
    objective: Objective,
    cfg: Config,
    worker: str,
    space: Space,
    judged: bool,
) -> None:
    trial = study.ask()
    with beating(storage, trial._trial_id):
        try:
            trial.set_user_attr("worker", worker)
        except UpdateFinishedTrialError:
            # Another worker took the trial for lost before it had a name.
            return
        if claimed(study, before=trial.number) >= cfg.hpo.trials:
            # Another worker drew at the same moment, and first.
            study.tell(trial, state=TrialState.FAIL)
            return
        # Seeded by number, a resumed study goes on with fresh draws instead of repeating its first ones.
        seed = int(np.random.SeedSequence([cfg.seed, trial.number]).generate_state(1)[0])
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        values = suggest(trial, space)
        more = [_reporter(trial, len(study.directions))] if judged else []
        _scored(study, trial, lambda: objective(values, trial.number, *more))


class _Lost(BaseException):
    """The storage failed inside an objective: that is not the trial's error."""


def _reporter(trial: optuna.Trial, objectives: int) -> Callable[[int, float], None]:
    def report(epoch: int, score: float) -> None:
        if objectives > 1:
            # Optuna prunes by a single one.
            return
        try:
            trial.report(score, epoch)
            pruned = trial.should_prune()
        except UNWRITABLE as error:
            raise _Lost from error
        if pruned:
            raise optuna.TrialPruned

    return report


def _scored(study: optuna.Study, trial: optuna.Trial, value: Callable[[], float | tuple[float, float]]) -> None:
    try:
        values = np.atleast_1d(value()).tolist()
    except optuna.TrialPruned:
        study.tell(trial, state=TrialState.PRUNED, skip_if_finished=True)
        logger.info("trial %d: pruned", trial.number)
        return
    except StorageError:
        # Without room no other trial would fare better: this one is left to be replaced.
        with contextlib.suppress(*UNWRITABLE):
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        raise
    except Exception as error:  # noqa: BLE001 - one trial that fails must not end the study
        _fail(study, trial, f"{type(error).__name__}: {error}")
        return
    except _Lost as lost:
        raise (lost.__cause__ or lost) from None
    except BaseException:
        study.tell(trial, state=TrialState.FAIL)
        raise
    if len(values) != len(study.directions):
        _fail(study, trial, f"{len(values)} values for {len(study.directions)} objectives")
    elif all(map(math.isfinite, values)):
        study.tell(trial, values, skip_if_finished=True)
        logger.info("trial %d: %.4f m", trial.number, values[0])
    else:
        _fail(study, trial, f"score {values[0]}")


def _fail(study: optuna.Study, trial: optuna.Trial, error: str) -> None:
    logger.warning("trial %d failed: %s", trial.number, error)
    with contextlib.suppress(UpdateFinishedTrialError):
        trial.set_user_attr("error", error)
    study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)


def best_trial(study: optuna.Study) -> FrozenTrial:
    """Return the trial of the lowest error; with two objectives the fastest of those that share it.

    Args:
        study: with at least one complete trial.
    """
    return min(study.best_trials, key=lambda trial: trial.values)


def best_config(study: optuna.Study, cfg: Config) -> Config:
    """Return the configuration with the best trial's values, for a whole run.

    Args:
        study: with at least one complete trial.
        cfg: that the study tuned.
    """
    return cfg.replaced(best_trial(study).params)
